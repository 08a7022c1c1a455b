"""Tables: how well holes are filled, rows imitated and anomalies found, beside the peers; and how fast they are read.

One command for each figure: `python -m benchmarks.tables NAME`. A figure is a module with `run(asked)`, which yields
tables, `SEEDS`, how often it is repeated by default, and the settings of our models at its top: what is not set there
is what `lowerbound train` chooses by itself.
"""

FIGURES = {
    "breast": "holes filled in scikit-learn's breast cancer table, half of it missing at random",
    "wine": "holes filled in white wine, where values are missing because they are large",
    "hivae": "holes filled in six tables of mixed columns, with the masks of HI-VAE",
    "adult": "a classifier trained on imitated rows of Adult; and the time that takes",
    "wilt": "the same on wilt, where one class is rare",
    "adbench": "anomalies found in 37 tables of ADBench",
    "scale": "the speed and the memory of reading 10 million rows",
}
