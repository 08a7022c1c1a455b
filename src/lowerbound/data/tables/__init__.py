"""Tables: rows of mixed columns with holes, from CSV, Parquet, Arrow and frames to numbers, and back.

    reading   where rows come from, batch by batch; text.py recognises files of text
    cells     what the values of one Arrow array are
    profile   what is seen of a column in one pass
    kinds     the kind of a column, from that
    schema    all columns, and what someone says of them (overrides)
    coding    cells to numbers, numbers to cells
    writing   a table to a file
    recipe    a table as a data set

Only the recipe is imported here: the others need pyarrow, the extra "tables".
"""

from .recipe import ENDINGS, frame, table

__all__ = ["ENDINGS", "frame", "table"]
