"""The measure of look-aheads against where the flow lands."""

from __future__ import annotations

import pytest

from benchmarks import lookahead


def test_a_look_ahead_that_takes_all_jumps_lands_where_the_flow_lands(tiny_editor, monkeypatch):
    monkeypatch.setattr(lookahead, "END", 4)
    found = lookahead.compare(tiny_editor, 0.3, 1)
    assert list(found) == list(lookahead.KINDS)
    assert found["map, 4 jumps"] == {"error": 0, "same time": 1, "cosine": pytest.approx(1, abs=1e-4)}
    assert found["denoiser"]["error"] > 0
    assert all(-1 <= row["cosine"] <= 1.0001 for row in found.values())
    assert found == lookahead.compare(tiny_editor, 0.3, 1)


def test_the_table_has_a_row_for_each_look_ahead_and_a_column_for_each_time():
    row = {"error": 0.123, "same time": 0.5, "cosine": 0.456}
    lines = lookahead.table({0.1: dict.fromkeys(lookahead.KINDS, row), 0.2: dict.fromkeys(lookahead.KINDS, row)})
    assert "| t = 0.1 | t = 0.2 |" in lines
    assert "| denoiser | 0.12 / 50 / 0.46 | 0.12 / 50 / 0.46 |" in lines
    assert len(lines.splitlines()) == 2 + len(lookahead.KINDS)
