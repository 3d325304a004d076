"""Initial rms force, and gradients of the first and last block, for 3, 6 and 12 layers.

    python benchmarks/starts.py

Medians over four seeds, for ten frames of the ethanol data in the package, with labels scaled to
unit rms force. Rows go to results/starts.jsonl; the table is printed.
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
    """Ten ethanol molecules, labels in units of their rms force component."""
    frames = read("ethanol").take(np.arange(10))
    minibatch = batch(dataset(frames, 5.0, least_squares(frames)), torch.arange(10))
    return rescaled(minibatch, rms(minibatch.labels.forces))


def start(model: str, activation: str, n_layers: int, seed: int, minibatch: Batch) -> list[float]:
    """Root mean squares of the forces and of the loss gradients of the first and last block."""
    torch.manual_seed(seed)
    network = build(model, activation=activation, n_layers=n_layers)
    force = rms(predict(network, minibatch.graph).forces)
    _, gradient = gradients(network, COST, stress=False)(flatten(network), minibatch)
    named = by_name(gradient, layout(network))
    ends = [
        rms(torch.cat([g.flatten() for n, g in named.items() if n.startswith(block)]))
        for block in (f"{BLOCKS[model]}.0.", f"{BLOCKS[model]}.{n_layers - 1}.")
    ]
    return [force, *ends]


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def main() -> None:
    minibatch, rows = molecules(), []
    for model in BLOCKS:
        for activation in ACTIVATIONS:
            for n_layers in LAYERS:
                all_seeds = [start(model, activation, n_layers, seed, minibatch) for seed in SEEDS]
                force, first, last = np.median(all_seeds, axis=0).tolist()
                case = {"model": model, "activation": activation, "n_layers": n_layers}
                rows.append({**case, "force": force, "first": first, "last": last})
                shown = f"| {force:.2g} | {first:.2g} / {last:.2g} |"
                print(f"| {model} `{activation}` | {n_layers} {shown}")
    ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
