"""How networks of 3, 6 and 12 layers start: rms force, and gradients of the first and last block.

    python benchmarks/starts.py

Medians over four seeds, for ten molecules of ethanol (in the package) and labels with unit force.
Rows go to results/starts.jsonl, the table is printed.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradpot.data.references import least_squares
from gradpot.data.source import read
from gradpot.graph.dataset import Batch, batch, dataset
from gradpot.models import build
from gradpot.potential.potential import predict
from gradpot.train.loss import Weights, penalty, rescaled, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import by_name, flatten, layout

ROWS = Path(__file__).parent / "results" / "starts.jsonl"
BLOCKS = {"schnet": "interactions", "painn": "updates"}
ACTIVATIONS, LAYERS, SEEDS = ("silu", "irelu"), (3, 6, 12), range(4)
COST = partial(weighted, weights=Weights(1, 1, 0), length=1.0, penalty=penalty("huber", 0.1))


def molecules() -> Batch:
    """Ten of ethanol, in units of their rms force component."""
    frames = read("ethanol").take(np.arange(10))
    piece = batch(dataset(frames, 5.0, least_squares(frames)), torch.arange(10))
    return rescaled(piece, rms(piece.labels.forces))


def start(model: str, activation: str, n_layers: int, seed: int, piece: Batch) -> list[float]:
    """Force, and gradients by the first and the last block's weights: root mean squares."""
    torch.manual_seed(seed)
    network = build(model, activation=activation, n_layers=n_layers)
    force = rms(predict(network, piece.graph).forces)
    _, slope = gradients(network, COST, stress=False)(flatten(network), piece)
    named = by_name(slope, layout(network))
    ends = [
        rms(torch.cat([g.flatten() for n, g in named.items() if n.startswith(block)]))
        for block in (f"{BLOCKS[model]}.0.", f"{BLOCKS[model]}.{n_layers - 1}.")
    ]
    return [force, *ends]


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def main() -> None:
    piece, rows = molecules(), []
    for model in BLOCKS:
        for activation in ACTIVATIONS:
            for n_layers in LAYERS:
                all_seeds = [start(model, activation, n_layers, seed, piece) for seed in SEEDS]
                force, first, last = np.median(all_seeds, axis=0).tolist()
                about = {"model": model, "activation": activation, "n_layers": n_layers}
                rows.append({**about, "force": force, "first": first, "last": last})
                shown = f"| {force:.2g} | {first:.2g} / {last:.2g} |"
                print(f"| {model} `{activation}` | {n_layers} {shown}")
    ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
