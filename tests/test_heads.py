"What heads do: the repeated segments are where they are said to be, and the scores are those of patterns made by hand."

import pytest
import torch

from transformer_nb.interpret.heads import (
    after_earlier_occurrences,
    induction_score,
    previous_token_score,
    repeated_segments,
)


def draw(seed, *sizes):
    return repeated_segments(*sizes, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length, shortest, longest", [(32, 8, 14), (9, 2, 4), (4, 2, 2), (20, 7, 7)])
def test_a_segment_occurs_twice_and_its_second_occurrence_is_predictable(length, shortest, longest):
    ids, predictable = draw(0, 200, length, 10_000, shortest, longest)  # so many tokens that none is drawn twice, nearly
    assert ids.shape == predictable.shape == (200, length) and ids.dtype == torch.int64 and predictable.dtype == torch.bool
    sizes = set()
    for row, known in zip(ids.tolist(), predictable.tolist()):
        start = known.index(True) - 1
        size = sum(known) + 1
        assert known == [start < t < start + size for t in range(length)]  # without the first token of the segment
        segment = row[start : start + size]
        assert any(row[t : t + size] == segment for t in range(start - size + 1))  # and they do not overlap
        sizes.add(size)
    assert sizes == set(range(shortest, longest + 1))


def test_places_and_distances_of_the_segments_differ():
    ids, predictable = draw(0, 500, 16, 10_000, 3, 5)
    starts = predictable.int().argmax(1) - 1
    firsts = (ids == ids.gather(1, starts[:, None])).int().argmax(1)
    assert set(firsts.tolist()) == set(range(0, 11))  # 16 - 2 * 3 is the last place
    assert set(starts.tolist()) == set(range(3, 14)) and set((starts - firsts).tolist()) == set(range(3, 14))


def test_what_is_not_repeated_is_random_and_a_generator_repeats_it():
    ids, predictable = draw(3, 400, 30, 7, 5, 9)
    shares = ids[~predictable].bincount(minlength=7) / (~predictable).sum()
    assert len(shares) == 7 and shares.min() > 0.12 and shares.max() < 0.17
    again, other = draw(3, 400, 30, 7, 5, 9), draw(4, 400, 30, 7, 5, 9)
    assert ids.equal(again[0]) and predictable.equal(again[1]) and not ids.equal(other[0])


@pytest.mark.parametrize("shortest, longest", [(1, 4), (5, 4), (2, 5)])
def test_impossible_lengths_are_refused(shortest, longest):
    with pytest.raises(ValueError, match=rf"= 4.*got shortest={shortest} and longest={longest}"):
        repeated_segments(1, 9, 50, shortest, longest)


IDS = torch.tensor([[4, 1, 4, 2, 1, 4], [0, 3, 5, 3, 2, 6]])
AFTER = {(0, 2, 1), (0, 4, 2), (0, 5, 1), (0, 5, 3), (1, 3, 2)}  # (sequence, query, key)


def random_weights(length=6):
    weights = torch.rand(2, 3, length, length, generator=torch.Generator().manual_seed(0)).tril()
    return weights / weights.sum(-1, keepdim=True)


def test_the_positions_after_earlier_occurrences():
    assert set(map(tuple, after_earlier_occurrences(IDS).nonzero().tolist())) == AFTER
    assert after_earlier_occurrences(torch.tensor([[3, 3, 3]]))[0].tolist() == [[False] * 3, [False, True, False], [False, True, True]]
    assert not after_earlier_occurrences(torch.tensor([[1, 2, 3]])).any()


def test_the_induction_score_is_the_mean_over_queries_of_the_weight_on_these_positions():
    weights = random_weights()
    by_hand = sum(weights[b, :, i, j] for b, i, j in AFTER) / 4  # four queries, one of them with two keys
    assert induction_score(weights, IDS).allclose(by_hand)
    perfect = torch.zeros(2, 1, 6, 6)
    for b, i, j in AFTER - {(0, 5, 3)}:
        perfect[b, 0, i, j] = 1
    assert induction_score(perfect, IDS).tolist() == [1.0]
    assert induction_score(torch.eye(6).expand(2, 1, 6, 6), IDS).tolist() == [0.0]


def test_the_previous_token_score_is_the_mean_below_the_diagonal():
    weights = random_weights()
    by_hand = sum(weights[:, :, i, i - 1].mean(0) for i in range(1, 6)) / 5
    assert previous_token_score(weights).allclose(by_hand)
    patterns = torch.stack([torch.eye(6).roll(-back, 1).tril() for back in (0, 1, 2)])[None]
    assert previous_token_score(patterns).tolist() == [0.0, 1.0, 0.0]


def test_each_head_has_a_score_of_its_own():
    weights = random_weights()
    for score in (previous_token_score, lambda w: induction_score(w, IDS)):
        assert score(weights).shape == (3,)
        assert score(weights[:, [2, 0]]).equal(score(weights)[[2, 0]])


def test_shapes_that_do_not_fit_are_refused(shapes_unchecked):
    weights = random_weights()
    for wrong in (weights[0], weights[..., :5], weights[..., :1, :1]):
        with pytest.raises(ValueError, match=r"at least 2, got \("):
            previous_token_score(wrong)
    for wrong, ids in ((weights[0], IDS), (weights, IDS[:1]), (weights, IDS[:, :5]), (weights[..., :5], IDS)):
        with pytest.raises(ValueError, match="belong together"):
            induction_score(wrong, ids)
    with pytest.raises(ValueError, match="no token occurs twice"):
        induction_score(weights, torch.arange(12).view(2, 6))
