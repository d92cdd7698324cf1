"""Low rank by streaming moments equals the full decomposition, and bounds a linear autoencoder."""

from __future__ import annotations

import pytest
import torch

from dl_lab.procedures.low_rank import fit_basis, sum_energies


def data(n=200, d=12):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(d, d, generator=generator)
    return torch.randn(n, d, generator=generator) @ mixing + 3


@pytest.mark.parametrize("centred", [False, True])
def test_streaming_equals_the_full_decomposition(centred):
    x = data().double()
    basis = fit_basis(iter(x.split(33)), centred)
    mean = x.mean(dim=0) if centred else torch.zeros(12).double()
    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)
    torch.testing.assert_close(basis.values, s**2 / len(x))
    for rank in (1, 5, 12):
        full = u[:, :rank] * s[:rank] @ vh[:rank] + mean
        torch.testing.assert_close(basis.project(x, rank), full)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_errors_of_all_ranks_are_those_of_the_projections(centred, noise):
    x = data()
    y = x if noise == 0 else x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    basis = fit_basis(iter(x.split(50)), centred)
    pairs = zip(x.split(70), x.split(70) if noise == 0 else y.split(70), strict=True)
    errors = sum_energies(basis, pairs).errors()
    for rank in (0, 1, 6, 12):
        direct = (basis.project(y.double(), rank) - x).square().mean()
        assert abs(float(errors[rank] - direct)) < 1e-9 * max(float(direct), 1), rank


def test_more_rank_never_hurts_and_the_mean_helps():
    x = data()
    errors = [sum_energies(fit_basis(iter([x]), c), ((b, b) for b in x.split(64))).errors() for c in (False, True)]
    assert all((e.diff() <= 1e-12).all() for e in errors)
    assert (errors[1][1:-1] <= errors[0][1:-1] + 1e-12).all()


def test_no_images():
    with pytest.raises(ValueError, match="no image"):
        fit_basis(iter([]), True)
