"""`impute`: what a table lacks, by a model of such tables."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .latent import TABLES, target
from .terminal import Device, Run, Seed, app, at_least, out


@app.command
def impute(
    run: Run,
    table: Annotated[Path, Parameter(help="A table like the one the model was trained on, with holes.")],
    /,
    *,
    out_file: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Where to put it: .csv, .parquet, ...")
    ] = None,
    draws: Annotated[int, Parameter(help="Fillings to draw, a numbered file each; 0 for the single best one.")] = 0,
    k: Annotated[int, Parameter(help="Importance samples for each row.")] = 1000,
    seed: Seed = 0,
    device: Device = "cpu",
) -> int:
    """Fill the holes of a table. It needs the model only, not its data; every row in is a row out.

    Numbers become their mean given the rest of the row, levels the likeliest. With --draws they are drawn from what
    they could be, which is what a calculation with error bars needs: do it with each file, and compare.
    """
    from .. import checkpoint, experiment
    from ..choices import check_support

    at_least(0, draws=draws, seed=seed)
    at_least(1, k=k)
    file = target(out_file, table.with_name(f"{table.name.split('.')[0]}-filled.csv"), TABLES)
    model: Any
    model, tables = checkpoint.load_model(run, device=str(experiment.find_device(device)))
    if "columns" not in tables["model"]:
        raise ValueError(f"{run} is no model of a table, and only such a model knows what a missing value is.")
    import torch

    from ..data.tables.coding import Coding
    from ..data.tables.reading import open_table
    from ..data.tables.writing import write_table
    from ..evaluation import impute as fill

    coding = Coding.of({key: tables["model"].get(key, []) for key in ("columns", "aside")})
    source = open_table(table)
    encoded = coding.encode(source)
    tables["data"] = {"name": "table", "path": str(table)}
    check_support(tables, model.decoder.family.support, encoded.x.float(), torch.arange(len(encoded.x)))
    for note in encoded.notes:
        out.print(note, markup=False)
    filled = fill(model, encoded.x, k=k, draws=draws, seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    for i, rows in enumerate(filled if draws else [filled], 1):
        place = file.with_name(f"{file.name.split('.')[0]}-{i:02}{''.join(file.suffixes)}") if draws else file
        write_table(place, coding.restore(source, coding.decode(rows)))
        out.print(f"wrote {place}", markup=False, soft_wrap=True)
    lacking = int(encoded.x.isnan().any(1).sum())
    out.print(f"{len(encoded.x):,} rows, {lacking:,} of them with something that the model did not know")
    return 0
