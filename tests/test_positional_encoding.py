"Sinusoids equal the paper's formula, rotations are rotations, and a position is the same whatever the offset."

import copy
import math
import pickle

import pytest
import torch
from helpers import assert_same

from transformer_nb.positional_encoding import (
    LearnedPositionalEncoding,
    NoPositionalEncoding,
    RotaryPositionalEncoding,
    SinusoidalPositionalEncoding,
    angles,
    apply_rotary,
    sinusoidal_encoding,
)


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def papers_formula(length, d_model):
    "PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(the same), in a double loop."
    table = torch.zeros(length, d_model, dtype=torch.float64)
    for position in range(length):
        for feature in range(d_model):
            angle = position / 10000 ** (2 * (feature // 2) / d_model)
            table[position, feature] = math.cos(angle) if feature % 2 else math.sin(angle)
    return table


SIZES = [(1, 1), (5, 2), (40, 16), (300, 6), (7, 5), (3, 1), (0, 4), (2000, 8)]


@pytest.mark.parametrize("length, d_model", SIZES)
def test_sinusoids_are_the_papers_to_1e_10_in_float64(length, d_model, float64_by_default):
    table = sinusoidal_encoding(length, d_model)
    torch.testing.assert_close(table, papers_formula(length, d_model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("length, d_model", SIZES)
def test_sinusoids_are_the_papers_rounded_once_to_float32(length, d_model):
    table = sinusoidal_encoding(length, d_model)
    expected = papers_formula(length, d_model).float()
    torch.testing.assert_close(table, expected, rtol=0, atol=6e-8)


@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_step_is_the_same_rotation_from_everywhere(step, float64_by_default):
    table, angle = sinusoidal_encoding(200, 8), angles(200, 8)[step]
    sine, cosine = table[:-step, 0::2], table[:-step, 1::2]
    later = torch.stack(
        (sine * angle.cos() + cosine * angle.sin(), cosine * angle.cos() - sine * angle.sin()), dim=-1
    )
    torch.testing.assert_close(table[step:], later.flatten(1), rtol=0, atol=1e-10)


def test_the_product_of_two_encodings_depends_on_their_distance_only(float64_by_default):
    product = sinusoidal_encoding(50, 16) @ sinusoidal_encoding(50, 16).T
    assert_same(product[:-1, :-1], product[1:, 1:])


def test_wavelengths_run_from_two_pi_to_nearly_ten_thousand_times_that_in_a_wide_table():
    wavelengths = 2 * math.pi / angles(2, 512)[1]
    assert_same(wavelengths[0], torch.tensor(2 * math.pi, dtype=torch.float64))
    assert 0.95 * 10_000 * 2 * math.pi < wavelengths[-1] < 10_000 * 2 * math.pi
    longest = 2 * math.pi / angles(2, 8)[1, -1]
    assert_same(longest, torch.tensor(1000 * 2 * math.pi, dtype=torch.float64))  # a tenth, in a narrow one


@pytest.mark.parametrize("length, d_model", [(-1, 4), (4, 0)])
def test_a_table_of_impossible_size_raises_an_error(length, d_model):
    with pytest.raises(ValueError, match=f"got {length} and {d_model}"):
        sinusoidal_encoding(length, d_model)


@pytest.mark.parametrize("d_model", [5, 6])
def test_sinusoidal_adds_the_table(d_model):
    x = torch.randn(2, 4, d_model)
    encoding = SinusoidalPositionalEncoding(10, d_model)
    assert_same(encoding(x), x + sinusoidal_encoding(4, d_model))


def test_sinusoidal_has_nothing_to_learn_and_nothing_to_save():
    encoding = SinusoidalPositionalEncoding(10, 6)
    assert not list(encoding.parameters()) and not encoding.state_dict()


def test_learned_adds_its_rows():
    x, encoding = torch.randn(2, 4, 6), LearnedPositionalEncoding(10, 6)
    assert_same(encoding(x), x + encoding.weight[:4])


def test_only_the_rows_in_use_of_a_learned_table_get_a_gradient():
    encoding = LearnedPositionalEncoding(5, 2)
    encoding(torch.zeros(3, 2, 2), offset=1).sum().backward()
    assert encoding.weight.grad[:, 0].tolist() == [0, 3, 3, 0, 0]


def test_none_returns_the_vectors_themselves():
    x = torch.randn(2, 4, 6)
    assert NoPositionalEncoding()(x, offset=3) is x


ENCODINGS = [SinusoidalPositionalEncoding, LearnedPositionalEncoding, RotaryPositionalEncoding]


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("offset", [1, 4, 9])
def test_an_offset_continues_the_sequence(kind, offset):
    x, encoding = torch.randn(2, 10, 6), kind(10, 6)
    assert_same(encoding(x[:, offset:], offset), encoding(x)[:, offset:])


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6), (2, 4, 3, 6)])
def test_any_number_of_leading_axes_works(kind, shape):
    assert kind(5, 6)(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("kind", [SinusoidalPositionalEncoding, RotaryPositionalEncoding])
@pytest.mark.parametrize("offset", [0, 30])
def test_a_table_grows_and_stays_the_same_where_it_was(kind, offset):
    x = torch.randn(1, 12, 6)
    assert_same(kind(4, 6)(x, offset), kind(100, 6)(x, offset))


@pytest.mark.parametrize("kind", [SinusoidalPositionalEncoding, RotaryPositionalEncoding])
def test_a_grown_table_keeps_the_precision_of_the_old_one(kind):
    encoding = kind(4, 6).to(torch.bfloat16)
    assert encoding(torch.randn(1, 12, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [SinusoidalPositionalEncoding, RotaryPositionalEncoding])
def test_a_table_grown_in_inference_mode_can_be_trained_through(kind):
    encoding, x = kind(4, 6), torch.randn(1, 12, 6, requires_grad=True)
    with torch.inference_mode():
        encoding(x)
    encoding(x).sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize("length, offset, end", [(5, 0, 5), (2, 3, 5), (1, 4, 5)])
def test_a_learned_table_too_short_says_by_how_much(length, offset, end):
    with pytest.raises(ValueError, match=f"table of 4 positions has no row for position {end - 1}: shorten the sequence"):
        LearnedPositionalEncoding(4, 6)(torch.randn(1, length, 6), offset)


def rotated(x, position, length=64):
    "One vector, rotated by its position."
    return RotaryPositionalEncoding(length, len(x)).to(x.dtype)(x[None], position)[0]


@pytest.mark.parametrize("distance", [0, 1, 20])
def test_the_product_of_rotated_vectors_depends_on_their_distance_only(distance, float64_by_default):
    q, k = torch.randn(8), torch.randn(8)
    products = [rotated(q, i + distance) @ rotated(k, i) for i in (0, 1, 5, 43)]
    assert_same(torch.stack(products), products[0].expand(4))


def test_other_distances_give_other_products(float64_by_default):
    q = torch.ones(8)
    assert rotated(q, 0) @ rotated(q, 1) > rotated(q, 0) @ rotated(q, 2) + 0.1


def test_a_rotation_keeps_the_length_of_each_pair():
    x = torch.randn(2, 50, 8)
    before, after = (y.unflatten(-1, (4, 2)).norm(dim=-1) for y in (x, RotaryPositionalEncoding(50, 8)(x)))
    assert_same(after, before)


def test_a_rotation_is_a_product_of_complex_numbers(float64_by_default):
    x = torch.randn(3, 50, 8)
    turn = torch.polar(torch.ones(50, 4), angles(50, 8))
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2))) * turn).flatten(-2)
    assert_same(RotaryPositionalEncoding(50, 8)(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_module_rotates_as_the_function_does(dtype):
    x, encoding = torch.randn(2, 3, 20, 8, dtype=dtype), RotaryPositionalEncoding(20, 8).to(dtype)
    cos, sin = (table.float().to(dtype) for table in (angles(20, 8).cos(), angles(20, 8).sin()))
    assert_same(encoding(x), apply_rotary(x, cos, sin))


def test_position_zero_is_not_rotated():
    x = torch.randn(1, 8)
    assert torch.equal(RotaryPositionalEncoding(4, 8)(x), x)


def test_rotary_has_nothing_to_learn_and_nothing_to_save():
    encoding = RotaryPositionalEncoding(10, 6)
    assert not list(encoding.parameters()) and not encoding.state_dict()


def test_rotary_needs_an_even_number_of_features():
    with pytest.raises(ValueError, match="d_k must be even, got 5"):
        RotaryPositionalEncoding(10, 5)


@pytest.mark.parametrize("kind", [SinusoidalPositionalEncoding, LearnedPositionalEncoding])
def test_each_sequence_of_a_batch_may_start_at_its_own_position(kind):
    encoding, x = kind(10, 6), torch.randn(3, 4, 6)
    together = encoding(x, torch.tensor([0, 5, 2]))
    for row, offset in enumerate((0, 5, 2)):
        assert_same(together[row], encoding(x[row], offset))


@pytest.mark.parametrize("kind", [SinusoidalPositionalEncoding, LearnedPositionalEncoding])
def test_a_position_before_0_gets_row_0(kind):
    encoding, x = kind(10, 6), torch.zeros(1, 4, 6)
    assert encoding(x, torch.tensor([-2]))[0].equal(encoding(x[0], 0)[[0, 0, 0, 1]])


def test_all_sines_may_come_before_all_cosines():
    assert_same(sinusoidal_encoding(5, 7, interleaved=False), sinusoidal_encoding(5, 7)[:, [0, 2, 4, 6, 1, 3, 5]])


COMPUTED = [SinusoidalPositionalEncoding, RotaryPositionalEncoding]


def on_meta(kind):
    with torch.device("meta"):
        return kind(8, 6)


REBUILT = {
    "rounded": lambda kind: kind(8, 6).bfloat16().float(),
    "halved": lambda kind: kind(8, 6).half().float(),
    "meta, to_empty": lambda kind: on_meta(kind).to_empty(device="cpu"),
    "meta, assign": on_meta,
    "copied": lambda kind: copy.deepcopy(kind(8, 6).bfloat16()).float(),
    "pickled": lambda kind: pickle.loads(pickle.dumps(kind(8, 6).bfloat16())).float(),
    "built in bfloat16": lambda kind: in_default_dtype(torch.bfloat16, kind),
}


def in_default_dtype(dtype, kind):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return kind(8, 6)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("how", REBUILT)
def test_a_table_is_exact_however_its_model_was_built(kind, how):
    x = torch.randn(2, 8, 6)
    assert REBUILT[how](kind)(x).equal(kind(8, 6)(x))


@pytest.mark.parametrize("kind", COMPUTED)
def test_float64_stays_float64_and_is_exact_where_it_is_the_default(kind):
    x = torch.randn(2, 300, 6, dtype=torch.float64)
    angle = angles(300, 6)
    sinusoids = x + torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
    expected = sinusoids if kind is SinusoidalPositionalEncoding else apply_rotary(x, angle.cos(), angle.sin())
    torch.testing.assert_close(in_default_dtype(torch.float64, kind)(x), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(kind(8, 6).double()(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype, digits", [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_a_rotation_in_half_precision_is_rounded_once(dtype, digits):
    x = torch.randn(2000, 6).to(dtype)
    exact = RotaryPositionalEncoding(8, 6)(x.double())
    error = (RotaryPositionalEncoding(8, 6)(x).double() - exact).abs() / exact.abs().clamp(min=1e-3)
    assert error.max() < digits
