"""Predict new rows of a table: `dl-lab predict RUN new.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.datasets.tables.cells import TableCells
from dl_lab.datasets.tables.columns import Columns
from dl_lab.datasets.tables.encoding import encode, from_plain
from dl_lab.datasets.tables.reading import Format, read_table
from dl_lab.procedures.rows import Row
from dl_lab.types import Answer, UserError


@dataclass
class PredictTable:
    """Predict the target of each row of a new table, prepared as in training.

    Args:
        model: The run's model.
        format: How the new file is written: as the run's own file, unless the user overrides a key.
    """

    model: nn.Module
    format: Format

    @torch.no_grad()
    def __call__(self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> Answer:
        """Predict the rows of a file.

        The file needs the columns that the run learned from; other columns are ignored. If it has the target, the
        answer repeats it as `actual`.

        Returns:
            A row for each row of the file: its line, and the number in the target's unit or the class with the shares.

        Raises:
            UserError: The file cannot be read, or has not all columns.
        """
        table = read_table(path, self.format, "format")
        columns = from_plain(preprocessing["columns"])
        lacking = [column.name for column in columns if column.name not in table.header]
        if lacking:
            raise UserError(f"{path} has no column {', '.join(lacking)}, which the run learned from.")
        settings = Columns(**preprocessing["settings"])
        features, strange = encode(TableCells(table, settings.is_missing, self.format.decimal), columns)
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        outputs = torch.cat([self.model(part) for part in torch.from_numpy(features).split(1024)])
        target = preprocessing["target"]
        known = table.place(target) if target in table.header else None
        rows: list[Row] = []
        for row, output in zip(table.rows, outputs, strict=True):
            answer: Row = {"line": row.line}
            if preprocessing["kind"] == "regression":
                answer[target] = float(output[0]) * preprocessing["deviation"] + preprocessing["mean"]
            else:
                shares = output.softmax(dim=0).tolist()
                names = preprocessing["class_names"]
                answer[target] = names[shares.index(max(shares))]
                answer |= {f"p({name})": round(share, 4) for name, share in zip(names, shares, strict=True)}
            if known is not None:
                answer["actual"] = row.cells[known]
            rows.append(answer)
        return Answer(rows, [f"{path}: {note}" for note in strange.notes()])
