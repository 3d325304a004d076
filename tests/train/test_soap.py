"""SOAP against its published algorithm, against Adam, and under rotations."""

import pytest
import torch
from torch import Tensor

from gradpot.train.muon import UPDATE_SIZE, orthogonal
from gradpot.train.soap import BETA, COVARIANCE_BETA, EPSILON, EVERY, LONGEST, SOAP, SQUARE_BETA

RATE = 0.02


def moved(weights: Tensor, gradients: Tensor, **options) -> Tensor:
    """A copy of weights [n, n_rows, n_columns] after a step with each gradient."""
    weights = weights.clone()
    soap = SOAP([weights], **options)
    for gradient in gradients:
        soap.param_groups[0]["lr"] = RATE
        weights.grad = gradient.clone()
        soap.step()
    return weights


def published(w: Tensor, gradients: Tensor, q_left: Tensor, q_right: Tensor) -> Tensor:
    """Algorithm 3 of arXiv 2409.11321 for one matrix, with Adam's correction of the bias."""
    first = gradients[0]
    left, right = ((1 - COVARIANCE_BETA) * g for g in (first @ first.T, first.T @ first))
    mean, square = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients[1:], start=1):
        mean = BETA * mean + (1 - BETA) * g
        square = SQUARE_BETA * square + (1 - SQUARE_BETA) * (q_left.T @ g @ q_right) ** 2
        rotated = q_left.T @ mean @ q_right / (1 - BETA**t)
        root = (square / (1 - SQUARE_BETA**t)) ** 0.5
        step = rotated / (root + EPSILON * root.max())
        w = w - RATE * q_left @ step @ q_right.T
        left = COVARIANCE_BETA * left + (1 - COVARIANCE_BETA) * g @ g.T
        right = COVARIANCE_BETA * right + (1 - COVARIANCE_BETA) * g.T @ g
        if t % EVERY == 0:
            q_left, q_right = torch.linalg.qr(left @ q_left)[0], torch.linalg.qr(right @ q_right)[0]
    return w


def normal(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_every_matrix_of_a_stack_moves_as_published(shape):
    start, gradients = normal(3, *shape), normal(35, 3, *shape, seed=1)
    soap, weights = SOAP([start]), start.clone()
    start.grad = gradients[0]
    soap.step()
    assert torch.equal(start, weights)
    sides = soap.state[start]["basis_rows"], soap.state[start]["basis_columns"]
    ours = moved(start, gradients)
    for i, (left, right) in enumerate(zip(*sides, strict=True)):
        for basis, g in ((left, gradients[0, i]), (right, gradients[0, i].T)):
            values = basis.T @ g @ g.T @ basis
            torch.testing.assert_close(values, values.diag().sort(descending=True)[0].diag())
        torch.testing.assert_close(ours[i], published(start[i], gradients[:, i], left, right))


def test_a_rotation_of_the_gradients_rotates_the_moves():
    """Adam lacks this: it depends on the basis of the weights."""
    u, v = (torch.linalg.qr(normal(6, 6, seed=n))[0] for n in (1, 2))
    zeros, gradients = torch.zeros(1, 6, 6, dtype=torch.float64), normal(25, 1, 6, 6)
    turned = moved(zeros, u @ gradients @ v)
    torch.testing.assert_close(turned, u @ moved(zeros, gradients) @ v, rtol=1e-6, atol=1e-9)


def test_matrices_with_two_long_sides_move_as_in_adam():
    n = LONGEST + 1
    start, gradients = normal(1, n, n), normal(4, 1, n, n, seed=1)
    gradients += gradients.sign()  # none is small
    theirs = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([theirs], lr=RATE, betas=(BETA, SQUARE_BETA))
    for gradient in gradients[1:]:
        theirs.grad = gradient.clone()
        adam.step()
    torch.testing.assert_close(moved(start, gradients), theirs.detach(), rtol=0, atol=1e-3 * RATE)


def test_soap_muon_sets_the_singular_values_of_each_move():
    start, gradients = normal(2, 6, 10), normal(2, 2, 6, 10, seed=1)
    plain = start - moved(start, gradients)
    ours = start - moved(start, gradients, orthogonalized=True)
    torch.testing.assert_close(ours, RATE * UPDATE_SIZE * 10**0.5 * orthogonal(plain))


def test_dead_units_stay_where_they_are_and_leave_no_denormal_numbers():
    start, gradients = normal(1, 32, 32).float(), normal(400, 1, 32, 32).float()
    gradients[:, :, ::2] = 0.0
    gradients[200:] = 0.0
    weights = start.clone()
    soap = SOAP([weights])
    for gradient in gradients:
        soap.param_groups[0]["lr"] = RATE
        weights.grad = gradient
        soap.step()
    far = (weights - start).norm(dim=-1)[0]
    assert far[::2].max() < 0.02 * far[1::2].min()
    tiny = torch.finfo(torch.float32).tiny
    for moment in soap.state[weights].values():
        assert ((moment == 0) | (moment.abs() >= tiny)).all()
