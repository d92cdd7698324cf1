"""Every mechanism against a loop over queries and keys; identities of the features; arguments that are refused."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dl_lab.models.attention import features, mechanisms
from dl_lab.models.attention.exact import fused_attention, softmax_attention
from dl_lab.models.attention.linear import (
    causal_sums,
    elu_attention,
    linear_attention,
    mclaurin_attention,
    random_feature_attention,
    series_attention,
)
from dl_lab.models.attention.low_rank import low_rank_attention
from dl_lab.models.attention.sparse import strided_attention, window_attention
from dl_lab.procedures.attention_cost import CPU_KERNELS

DIM = 5


def naive(q, k, v, mask, causal, similarity, sees=lambda i, j: True):
    """z_i = sum_j s(q_i, k_j) v_j / sum_j s(q_i, k_j), one number at a time; zeros where no key is seen."""
    z = torch.zeros(q.shape[0], v.shape[1], dtype=q.dtype)
    for i in range(q.shape[0]):
        total = 0.0
        for j in range(k.shape[0]):
            if (mask is None or mask[j]) and (not causal or j <= i) and sees(i, j):
                weight = similarity(q[i], k[j])
                z[i] += weight * v[j]
                total += weight
        if total != 0.0:
            z[i] /= total
    return z


def exponential(q, k):
    return math.exp(float(q @ k))


def series(terms):
    return lambda q, k: sum(float(q @ k) ** n / math.factorial(n) for n in range(terms))


def elu_similarity(q, k):
    return float((nn.functional.elu(q) + 1) @ (nn.functional.elu(k) + 1))


DIRECTIONS = features.orthogonal_directions(16, DIM, torch.Generator().manual_seed(3)).double()


def random_similarity(q, k):
    return float(features.positive_random_features(q, DIRECTIONS) @ features.positive_random_features(k, DIRECTIONS))


CASES = {
    "softmax": (softmax_attention, exponential, None),
    "fused": (fused_attention, exponential, None),
    "mclaurin 1": (partial(mclaurin_attention, terms=1, chunk=4), series(1), None),
    "mclaurin 3": (partial(mclaurin_attention, terms=3, chunk=4), series(3), None),
    "mclaurin 3 ordered": (partial(mclaurin_attention, terms=3, basis="ordered", chunk=4), series(3), None),
    "mclaurin 5": (partial(mclaurin_attention, terms=5, chunk=64), series(5), None),
    "series 3": (partial(series_attention, terms=3), series(3), None),
    "elu": (partial(elu_attention, chunk=3), elu_similarity, None),
    "random": (partial(random_feature_attention, directions=DIRECTIONS, chunk=4), random_similarity, None),
    "window 1": (partial(window_attention, window=1), exponential, lambda i, j: abs(i - j) <= 1),
    "window 4": (partial(window_attention, window=4), exponential, lambda i, j: abs(i - j) <= 4),
    "window 40": (partial(window_attention, window=40), exponential, lambda i, j: abs(i - j) <= 40),
    "stride 1": (partial(strided_attention, stride=1), exponential, None),
    "stride 4": (
        partial(strided_attention, stride=4),
        exponential,
        lambda i, j: abs(i - j) < 4 or (i - j) % 4 == 0,
    ),
}


@pytest.fixture
def qkv():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 13, DIM, generator=generator, dtype=torch.float64) for _ in range(3))


MASK = torch.tensor([[True] * 9 + [False] * 4, [True] * 5 + [False, True] * 4])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_naive_loop(name, causal, masked, qkv):
    attention, similarity, sees = CASES[name]
    mask = MASK if masked else None
    z = attention(*qkv, mask, causal=causal)
    for item in range(2):
        q, k, v = (x[item] for x in qkv)
        expected = naive(q, k, v, MASK[item] if masked else None, causal, similarity, sees or (lambda i, j: True))
        torch.testing.assert_close(z[item], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("causal", [False, True])
def test_masked_keys_change_neither_outputs_nor_gradients(name, causal, qkv):
    attention = CASES[name][0]
    mask = MASK.clone()
    mask[1] = False  # an item without any key
    changed = [x.clone() for x in qkv]
    for x in changed[1:]:
        x[~mask] = 7.0
    for x in qkv:
        x.requires_grad_()
    z = attention(*qkv, mask, causal=causal)
    torch.testing.assert_close(z, attention(*changed[:1], *changed[1:], mask, causal=causal))
    assert torch.equal(z[1], torch.zeros_like(z[1]))
    z.sum().backward()
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in qkv]  # one term needs no q and k
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert not gradients[1][~mask].any()
    assert not gradients[2][~mask].any()


@pytest.mark.parametrize("name", CASES)
def test_a_causal_output_ignores_later_positions(name, qkv):
    attention = CASES[name][0]
    z = attention(*qkv, None, causal=True)
    later = [torch.cat([x[:, :8], torch.randn(2, 5, DIM, dtype=x.dtype)], dim=1) for x in qkv]
    torch.testing.assert_close(attention(*later, None, causal=True)[:, :8], z[:, :8])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 2)])
def test_leading_axes(name, lead):
    attention = CASES[name][0]
    q, k, v = (torch.randn(*lead, 6, DIM, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([True] * 4 + [False] * 2).expand(*lead, 6)
    z = attention(q, k, v, mask, causal=True)
    assert z.shape == v.shape
    flat = [x.reshape(-1, 6, DIM)[-1] for x in (q, k, v)]
    torch.testing.assert_close(z.reshape(-1, 6, DIM)[-1], attention(*flat, mask.reshape(-1, 6)[-1], causal=True))


# -- feature maps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "terms", "count"), [(2, 3, 6), (4, 3, 15), (8, 3, 45), (64, 3, 2145), (8, 4, 165)])
def test_compact_feature_counts_of_the_coursework(dim, terms, count):
    assert features.n_mclaurin_features(dim, terms) == count
    assert features.mclaurin_features(torch.randn(3, dim), terms).shape == (3, count)


def test_ordered_pairs_need_more_features():
    assert features.n_mclaurin_features(8, 3, "ordered") == 1 + 8 + 64
    assert features.mclaurin_features(torch.randn(8), 3, "ordered").shape == (73,)


def test_three_terms_are_the_map_of_the_coursework():
    x = torch.tensor([2.0, 3.0])
    expected = [1, 2, 3, 4 / 2**0.5, 6, 9 / 2**0.5]  # 1; x; x1^2/sqrt 2, x1 x2, x2^2/sqrt 2
    torch.testing.assert_close(features.mclaurin_features(x), torch.tensor(expected))


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("basis", ["compact", "ordered"])
def test_products_of_features_are_the_truncated_series(terms, basis):
    q, k = torch.randn(2, 50, DIM, dtype=torch.float64)
    product = (features.mclaurin_features(q, terms, basis) * features.mclaurin_features(k, terms, basis)).sum(dim=-1)
    t = (q * k).sum(dim=-1)
    expected = sum(t**n / math.factorial(n) for n in range(terms))
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(features.truncated_exponential(t, terms), expected)


def test_odd_series_stay_positive_and_even_ones_do_not():
    t = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    for terms in (1, 3, 5, 7):
        assert features.truncated_exponential(t, terms).min() > 0
    for terms in (2, 4, 6):
        assert features.truncated_exponential(t, terms).min() < 0


def test_random_features_estimate_the_exponential():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, generator=generator).double() / 2
    directions = features.orthogonal_directions(40_000, 4, generator).double()
    product = features.positive_random_features(q, directions) @ features.positive_random_features(k, directions)
    assert float(product) == pytest.approx(math.exp(float(q @ k)), rel=0.02)


def test_directions_are_orthogonal_in_blocks():
    directions = features.orthogonal_directions(7, 4, torch.Generator().manual_seed(0))
    gram = directions[:4] @ directions[:4].T
    torch.testing.assert_close(gram, gram.diag().diag(), atol=1e-5, rtol=0)
    assert directions.shape == (7, 4)


# -- linear attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 100])
def test_chunks_do_not_change_prefix_sums(chunk):
    phi_q, phi_k = torch.randn(2, 13, 6, dtype=torch.float64)
    v = torch.randn(13, 3, dtype=torch.float64)
    torch.testing.assert_close(causal_sums(phi_q, phi_k, v, chunk), (phi_q @ phi_k.T).tril() @ v)


def test_a_normaliser_that_is_not_positive_is_refused():
    q = torch.full((1, 2), 2.0)
    k = torch.full((3, 2), -2.0)  # q . k = -8: 1 - 8 < 0
    v = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"1 of 1 queries have a normaliser .*odd number of terms"):
        mclaurin_attention(q, k, v, terms=2)
    torch.testing.assert_close(mclaurin_attention(q, -k, v, terms=2), torch.ones(1, 2))
    torch.testing.assert_close(mclaurin_attention(q, k, v, terms=3), torch.ones(1, 2))


def test_gradients_of_the_chunked_sums():
    q, k, v = (torch.randn(7, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda *x: mclaurin_attention(*x, causal=True, chunk=3), (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: window_attention(*x, window=2), (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: strided_attention(*x, stride=3), (q, k, v))


def test_large_random_feature_exponents_do_not_overflow():
    q, k, v = (torch.randn(9, DIM) * 30 for _ in range(3))
    z = random_feature_attention(q, k, v, directions=DIRECTIONS.float())
    assert torch.isfinite(z).all()


def test_linear_attention_is_a_weighted_mean():
    phi = torch.rand(6, 4)
    torch.testing.assert_close(linear_attention(phi, phi, torch.ones(6, 2), causal=True), torch.ones(6, 2))


# -- low rank -----------------------------------------------------------------------------------------------------


def test_low_rank_without_projection_is_exact(qkv):
    eye = torch.eye(13, dtype=torch.float64)
    z = low_rank_attention(*qkv, project_k=eye, project_v=eye)
    torch.testing.assert_close(z, softmax_attention(*qkv))


def test_low_rank_leaves_masked_keys_out(qkv):
    project = torch.randn(2, 4, 20, dtype=torch.float64)
    q, k, v = qkv
    z = low_rank_attention(q, k, v, MASK, project_k=project[0], project_v=project[1])
    other = k.masked_fill(~MASK[..., None], 9.0), v.masked_fill(~MASK[..., None], 9.0)
    torch.testing.assert_close(z, low_rank_attention(q, *other, MASK, project_k=project[0], project_v=project[1]))
    with pytest.raises(ValueError, match="13 keys, but the projections were made for at most 12"):
        low_rank_attention(q, k, v, project_k=project[0, :, :12], project_v=project[1, :, :12])


# -- the modules --------------------------------------------------------------------------------------------------

MODULES = {
    "softmax": mechanisms.Softmax,
    "fused": mechanisms.Fused,
    "mclaurin": mechanisms.McLaurin,
    "mclaurin 5": partial(mechanisms.McLaurin, terms=5, chunk=7),
    "elu": mechanisms.Elu,
    "random features": partial(mechanisms.RandomFeatures, n_features=20),
    "window": partial(mechanisms.Window, window=6),
    "strided": mechanisms.Strided,
    "strided 5": partial(mechanisms.Strided, stride=5),
    "low rank": mechanisms.LowRank,
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [50, 200])
def test_the_flops_formula_equals_torchs_count(name, causal, length):
    if name == "low rank" and causal:
        pytest.skip("low-rank attention cannot be causal")
    module = MODULES[name](8, length, causal)
    q, k, v = torch.randn(3, 1, 1, length, 8)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=CPU_KERNELS) as counter:
        module(q, k, v)
    assert counter.get_total_flops() == module.flops(length)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: mechanisms.McLaurin(8, 32, terms=4), "terms 4 is even"),
        (lambda: mechanisms.McLaurin(8, 32, terms=-1), "terms -1 is not at least 1"),
        (lambda: mechanisms.LowRank(8, 64, causal=True), "cannot be causal"),
        (lambda: mechanisms.LowRank(8, 16, rank=32), "rank 32 is above the length 16"),
        (lambda: mechanisms.Window(8, 16, window=0), "window 0 is not at least 1"),
        (lambda: mechanisms.Strided(8, 16, stride=0), "stride 0 is not at least 1"),
        (lambda: mechanisms.Elu(8, 16, chunk=0), "chunk 0 is not at least 1"),
        (lambda: mechanisms.RandomFeatures(8, 16, n_features=0), "n_features 0 is not at least 1"),
    ],
)
def test_the_constructor_refuses_what_cannot_work(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("attention", [softmax_attention, mclaurin_attention])
def test_causal_needs_as_many_queries_as_keys(attention):
    with pytest.raises(ValueError, match="as many queries as keys, not 3 and 4"):
        attention(torch.randn(3, 2), torch.randn(4, 2), torch.randn(4, 2), causal=True)


def test_seeded_directions_are_the_same_in_every_build():
    first, second = (mechanisms.RandomFeatures(8, 16, seed=1).directions for _ in range(2))
    assert torch.equal(first, second)
    assert "directions" in mechanisms.RandomFeatures(8, 16).state_dict()
