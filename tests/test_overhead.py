"""The measurement of overhead: what is replayed is what was called, and the quotient is that of the clocks."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from benchmarks import overhead
from benchmarks.overhead import recording, tensors


class Network(nn.Module):
    """Doubles its inputs; notes the batch and whether gradients were on, and how often one came back."""

    def __init__(self, clock=None, costs=0.0):
        super().__init__()
        self.clock, self.costs, self.seen, self.returned = clock, costs, [], 0

    def forward(self, x, scale=None):
        if self.clock:
            self.clock.now += self.costs
        self.seen.append((len(x), torch.is_grad_enabled()))
        out = 2 * x if scale is None else scale * x
        if out.requires_grad:
            out.register_hook(lambda _: setattr(self, "returned", self.returned + 1))
        return {"out": out, "kind": "a word"}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(overhead, "CLOCKS", {"wall": made, "cpu": lambda: 2 * made.now})
    return made


def work(flow, decoder, clock=None):
    """Two network calls, one of them with a gradient, and something else."""
    with torch.no_grad():
        clean = flow(torch.ones(6, 3))["out"]
    x = clean.requires_grad_()
    image = decoder(x, scale=torch.tensor(3.0))["out"]
    torch.autograd.grad(image.sum(), x)
    if clock:
        clock.now += 0.5


def test_calls_are_replayed_with_their_batches_and_their_gradients():
    flow, decoder = Network(), Network()
    with recording({"flow map": flow, "decoder": decoder}) as calls:
        work(flow, decoder)
    assert [(call.part, len(call.inputs)) for call in calls] == [("flow map", 0), ("decoder", 1)]
    assert torch.equal(calls[1].arguments[0], torch.full((6, 3), 2.0))
    for _ in range(2):
        for call in calls:
            call.again()
    assert flow.seen == [(6, False)] * 3
    assert decoder.seen == [(6, True)] * 3
    assert (flow.returned, decoder.returned) == (0, 3)


def test_nothing_is_recorded_after_the_context():
    flow, decoder = Network(), Network()
    with recording({"flow map": flow}) as calls:
        pass
    work(flow, decoder)
    assert calls == []


def test_a_network_whose_weights_are_frozen_needs_no_gradient_of_them():
    layer = nn.Linear(3, 3).requires_grad_(False)
    with recording({"flow map": layer}) as calls, torch.enable_grad():
        layer(torch.ones(2, 3))
    assert calls[0].inputs == []
    calls[0].again()


def test_the_overhead_is_the_quotient_of_the_times(clock):
    flow, decoder = Network(clock, 1.0), Network(clock, 1.5)
    with recording({"flow map": flow, "decoder": decoder}) as calls:
        work(flow, decoder, clock)
    found = overhead.overhead(lambda: work(flow, decoder, clock), calls, repeats=3)
    assert found["wall_seconds"] == pytest.approx(3.0)
    assert found["wall_seconds_bare"] == pytest.approx(2.5)
    assert found["wall_overhead"] == found["cpu_overhead"] == pytest.approx(1.2)
    assert found["cpu_seconds"] == pytest.approx(6.0)
    assert found["parts"] == pytest.approx({"flow map": 1.0, "decoder": 1.5})


def test_outputs_are_found_wherever_they_stand():
    a, b = torch.ones(1), torch.zeros(1)
    assert len(tensors((a, [b, None], {"c": a, "d": "words"}))) == 3
    assert tensors(a)[0] is a
    assert tensors(None) == []


def test_the_command_prints_and_writes_what_it_found(monkeypatch, tmp_path, capsys):
    chosen = {}
    monkeypatch.setattr(overhead, "prepare", lambda threads: chosen.update(threads=threads))
    monkeypatch.setattr(overhead.Editor, "load", lambda: "an editor")
    monkeypatch.setattr(overhead, "measure", lambda editor, effort, repeats: {"effort": effort, "repeats": repeats})
    overhead.main(["--effort", "fast", "--repeats", "2", "--threads", "1", "--json", str(tmp_path / "out.json")])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out.json").read_text())
    assert json.loads((tmp_path / "out.json").read_text()) == {"effort": "fast", "repeats": 2}
    assert chosen == {"threads": 1}
