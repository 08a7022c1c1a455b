"""Published numbers, reproduced: one command for each row of the table.

`python -m benchmarks.published ROW` trains by the row's own file, ROW.toml, and takes the importance-weighted bound of
each of the test images. It works for `--minutes` at most and stops where it can go on: the same command again goes on,
with the same result as if it had never stopped. `python -m benchmarks.published results` writes the table of what has
been measured. Everything was chosen by looking at validation images, never at test images.
"""
