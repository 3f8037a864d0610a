"""Contrastive pre-training: the loss by its definition, what it ignores, tokens found, runs that go on."""

import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests.training.toys import TINY, make_dataset
from torch import Tensor, nn

from crossalign.errors import InputError, OutputError, WeightsError
from crossalign.geometry import Rigid
from crossalign.models import StageSettings, save_stage
from crossalign.models.arrangement import Stage
from crossalign.models.extractors import (
    FeatureMap,
    extractors_of,
    feature_map,
    load_extractors,
    put_extractors,
    save_extractors,
)
from crossalign.networks import build_network
from crossalign.training import (
    NO_AUGMENTATION,
    PairDataset,
    RegistrationTask,
    RunResult,
    TrainingSettings,
    run_task,
)
from crossalign.training.preparation import select_patients
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.run_folder import read_history
from crossalign.training.tasks.contrastive import (
    DrawnTokens,
    draw_tokens,
    find_matches,
    info_nce_loss,
    measure_retrieval,
)
from crossalign.training.tasks.pretraining import PretrainingTask, pretrained_network, read_retrieval
from crossalign.training.tasks.registration import seeded_network

TRAIN, VAL = make_dataset(6, 1, inverted=True), make_dataset(3, 2, inverted=True)
SETTINGS = PretrainingSettings(
    TINY, steps=6, batch=4, val_every=3, tokens=8, foreground_only=False, precision="float32", seed=3, radius_mm=1.0
)


def random_tokens(crops: int, count: int, cases: list[int], seed: int = 0) -> DrawnTokens:
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(count).expand(crops, -1)
    tokens = torch.randint(0, 4, (crops, count, 3), generator=generator) * 5.0 + torch.arange(count)[:, None] * 0.01
    usable = torch.rand(crops, count, generator=generator) < 0.7
    return DrawnTokens(number, torch.zeros(crops, count, 3), tokens, usable, torch.tensor(cases))


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def slow_loss(fixed: Tensor, moving: Tensor, tokens: DrawnTokens, temperature: float, margin_mm: float) -> float:
    """Term by term, in both directions."""
    terms = []
    cells = [(b, i) for b in range(len(fixed)) for i in range(fixed.shape[1]) if tokens.usable[b, i]]
    for one, two in ((fixed, moving), (moving, fixed)):
        for b, i in cells:
            positive = math.exp(float(one[b, i] @ two[b, i]) / temperature)
            negatives = 0.0
            for c, j in cells:
                if c == b and float((tokens.positions_mm[b, i] - tokens.positions_mm[b, j]).norm()) <= margin_mm:
                    continue
                if c != b and tokens.case[c] == tokens.case[b]:
                    continue
                negatives += math.exp(float(one[b, i] @ two[c, j]) / temperature)
            terms.append(-math.log(positive / (positive + negatives)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("margin_mm", [0.0, 6.0, 100.0])
@pytest.mark.parametrize("cases", [[0, 1, 2], [4, 7, 4]])
def test_the_loss_is_its_definition(margin_mm: float, cases: list[int]) -> None:
    fixed, moving, tokens = unit(3, 7, 5, seed=1), unit(3, 7, 5, seed=2), random_tokens(3, 7, cases)
    assert 0 < int(tokens.usable.sum()) < 21
    found = float(info_nce_loss(fixed, moving, tokens, 0.3, margin_mm))
    assert found == pytest.approx(slow_loss(fixed, moving, tokens, 0.3, margin_mm), rel=1e-5)


def test_the_margin_is_left_out_and_what_lies_beyond_is_not() -> None:
    """The loss does not see what the tokens within the margin look like; it does see those beyond."""
    positions_mm = torch.tensor([[0.0, 0, 0], [9.0, 0, 0], [12.0, 0, 0]]).expand(2, 3, 3)
    usable = torch.ones(2, 3, dtype=torch.bool)
    tokens = DrawnTokens(torch.arange(3).expand(2, 3), positions_mm, positions_mm, usable, torch.arange(2))
    fixed, moving = unit(2, 3, 4, seed=3), unit(2, 3, 4, seed=4)

    def slope(query: int, other: int, margin_mm: float) -> Tensor:
        """How the loss changes with what the moving image shows at `other`, by way of the fixed token `query`."""
        only = torch.zeros_like(usable)
        only[0, query] = True
        leaf = moving.clone().requires_grad_()
        every = info_nce_loss(fixed, leaf, tokens, 0.1, margin_mm)
        without = info_nce_loss(
            torch.where(only[..., None], fixed.detach() * 0, fixed),
            leaf,
            replace(tokens, usable=usable),
            0.1,
            margin_mm,
        )
        (change,) = torch.autograd.grad(every - without, leaf)
        return change[0, other].abs().sum()

    assert slope(0, 2, 10.0) > 1e-6
    rows = [slow_loss(fixed, moving, tokens, 0.1, margin) for margin in (8.0, 10.0, 13.0)]
    assert len({round(row, 6) for row in rows}) == 3
    assert [float(info_nce_loss(fixed, moving, tokens, 0.1, m)) for m in (8.0, 10.0, 13.0)] == pytest.approx(rows)


def test_a_margin_over_the_crop_leaves_the_other_cases_alone() -> None:
    """Swapping two tokens' features within a crop changes nothing but the positives when all are within the margin."""
    tokens = replace(random_tokens(2, 6, [0, 1]), usable=torch.ones(2, 6, dtype=torch.bool))
    fixed, moving = unit(2, 6, 4, seed=5), unit(2, 6, 4, seed=6)
    alone = info_nce_loss(fixed[:1], moving[:1], DrawnTokens(*(getattr(tokens, n)[:1] for n in vars(tokens))), 0.1, 1e3)
    assert float(alone) == pytest.approx(0.0, abs=1e-6)  # no negatives at all
    assert float(info_nce_loss(fixed, moving, tokens, 0.1, 1e3)) > 0.1


def test_an_empty_batch_is_an_error() -> None:
    tokens = replace(random_tokens(2, 4, [0, 1]), usable=torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="no token of this batch is usable"):
        info_nce_loss(unit(2, 4, 3, seed=1), unit(2, 4, 3, seed=2), tokens, 0.1, 5.0)


def test_aligned_crops_match_by_index_and_others_by_the_correction() -> None:
    where = FeatureMap(1, (3, 4, 5), (2, 2, 2), (6, 8, 10))
    numbers = torch.arange(60.0).reshape(1, 1, 3, 4, 5)
    crop = torch.ones(1, 1, 6, 8, 10)
    still = find_matches(
        crop, Rigid.from_parameters(torch.zeros(1, 6), torch.zeros(3)), where, 3.0, foreground_only=True
    )
    assert bool(still.usable.all())
    tokens = draw_tokens(still, torch.zeros(1, dtype=torch.long), 99, torch.Generator().manual_seed(0))
    fixed, moving = tokens.select(numbers, numbers)
    torch.testing.assert_close(fixed, moving)
    assert sorted(fixed.flatten().tolist()) == list(range(60))
    shift = Rigid.from_parameters(torch.tensor([[12.0, 0, 0, 0, 0, 0]]), torch.zeros(3))  # two tokens along x
    moved = find_matches(crop, shift, where, 3.0, foreground_only=True)
    assert moved.usable.reshape(3, 4, 5).sum(-1).flatten().tolist() == [3] * 12
    tokens = draw_tokens(moved, torch.zeros(1, dtype=torch.long), 36, torch.Generator().manual_seed(0))
    assert bool(tokens.usable.all())  # usable ones first
    fixed, moving = tokens.select(numbers, numbers)
    torch.testing.assert_close(fixed + 2, moving)


def test_empty_ultrasound_is_not_used() -> None:
    where = FeatureMap(1, (4, 4, 4), (2, 2, 2), (8, 8, 8))
    crop = torch.ones(1, 1, 8, 8, 8)
    crop[..., :4] = 0.0
    still = Rigid.from_parameters(torch.zeros(1, 6), torch.zeros(3))
    foreground = find_matches(crop, still, where, 3.0, foreground_only=True)
    assert foreground.usable.reshape(4, 4, 4)[0, 0].tolist() == [False, False, True, True]
    assert torch.equal(foreground.usable, foreground.candidates)
    assert bool(find_matches(crop, still, where, 3.0, foreground_only=False).usable.all())


def test_retrieval_of_known_embeddings() -> None:
    """The identity finds all; chance is what random draws give."""
    where = FeatureMap(64, (4, 4, 4), (2, 2, 2), (8, 8, 8))
    still = Rigid.from_parameters(torch.zeros(2, 6), torch.zeros(3))
    matches = find_matches(torch.ones(2, 1, 8, 8, 8), still, where, 3.0, foreground_only=True)
    same = torch.eye(64).expand(2, 64, 64)
    perfect = measure_retrieval(same, same, matches, 0.0)
    assert (perfect.top1, perfect.top5, perfect.other_case1) == (1.0, 1.0, 1.0)
    assert perfect.chance1 == pytest.approx(1 / 64)
    assert perfect.chance5 == pytest.approx(5 / 64)
    swapped = torch.stack((torch.eye(64), torch.eye(64).roll(32, 0)))
    own = measure_retrieval(swapped, swapped, matches, 7.0)
    assert (own.top1, own.other_case1) == (1.0, 0.0)
    blind = [
        measure_retrieval(unit(2, 64, 9, seed=2 * k), unit(2, 64, 9, seed=2 * k + 1), matches, 7.0) for k in range(40)
    ]
    for name, chance in (("top1", "chance1"), ("top5", "chance5")):
        expected = getattr(blind[0], chance)
        assert sum(getattr(r, name) for r in blind) / len(blind) == pytest.approx(expected, abs=0.02)
    assert math.isnan(
        measure_retrieval(
            same[:1], same[:1], find_matches(torch.ones(1, 1, 8, 8, 8), still[:1], where, 3.0, True), 0.0
        ).other_case1
    )


@pytest.mark.parametrize(("model", "shape"), [("attention-reg", (9, 16, 13)), ("correspondence", (8, 16, 12))])
def test_the_map_is_what_the_extractor_makes(model: str, shape: tuple[int, int, int]) -> None:
    network = build_network(model, shape, 2.5)
    where = feature_map(network, shape)
    for extractor in extractors_of(network):
        made = extractor.eval()(torch.zeros(1, 1, *shape))
        assert (made.shape[1], tuple(made.shape[2:])) == (where.channels, where.shape)
    points = where.positions_mm(2.5)
    assert len(points) == math.prod(where.shape)
    expected = torch.cartesian_prod(*(torch.arange(n) for n in where.shape)).flip(-1).float()
    torch.testing.assert_close(where.to_index(points, 2.5), expected)


def test_tokens_are_where_the_extractor_looks() -> None:
    """A bright voxel on the stride's multiple changes the token of that number most."""
    extractor = extractors_of(seeded_network(StageSettings("feature-reg"), 0))[0].eval()
    crop = torch.zeros(1, 1, 32, 32, 32)
    lit = crop.clone()
    lit[0, 0, 8, 12, 16] = 1.0
    with torch.no_grad():
        change = (extractor(lit) - extractor(crop)).abs().sum(1)[0]
    token = change.nonzero().float().mean(0)
    assert token.tolist() == pytest.approx([4, 3, 4], abs=0.3)


class OneWay(nn.Module):
    """A network whose images meet at once."""


def test_networks_without_two_extractors_are_refused() -> None:
    with pytest.raises(InputError, match="OneWay has no separate extractors"):
        extractors_of(OneWay())


def run(folder: Path, settings: PretrainingSettings = SETTINGS, stop: int | None = None) -> RunResult:
    def watch(row: dict[str, float]) -> None:
        if row["step"] == stop:
            raise KeyboardInterrupt

    return run_task(PretrainingTask(TRAIN, VAL, settings), folder, watch=watch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder).finished
    return folder


def test_what_a_run_leaves(whole: Path) -> None:
    weights = load_extractors(whole / "best.safetensors")
    assert {name.split(".")[0] for name in weights.tensors} == {"fixed_extractor", "moving_extractor"}
    assert weights.settings == TINY
    notes = {name: json.loads(weights.notes[name]) for name in ("retrieval", "retrieval_of_features", "training")}
    saved = json.loads((whole / "settings.json").read_text())
    assert set(saved.pop("data")["tensors"]) == {"train", "val"}
    assert notes["training"] == saved
    rows = read_history(whole / "history.csv")
    assert [row["step"] for row in rows] == [3, 6]
    assert min(row["val_top1_miss"] for row in rows) == pytest.approx(1 - notes["retrieval"]["top1"], abs=1e-5)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_resumed_it_ends_as_if_never_stopped(step: int, whole: Path, tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        run(tmp_path, stop=step)
    assert run(tmp_path).finished
    for name in ("best", "last"):
        mine, theirs = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, whole))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    with pytest.raises(OutputError, match="other settings"):
        run(tmp_path, replace(SETTINGS, temperature=0.2))


def test_it_starts_from_the_extractors_that_training_would_draw() -> None:
    ours = PretrainingTask(TRAIN, VAL, SETTINGS).fresh_model()
    theirs = seeded_network(TINY, SETTINGS.seed)
    for mine, drawn in zip(extractors_of(ours), extractors_of(theirs), strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(mine.state_dict().values(), drawn.state_dict().values(), strict=True)
        )


def texture_dataset(count: int, seed: int) -> PairDataset:
    """Smooth noise against its negative: every token is like no other."""
    dataset = make_dataset(count, seed)
    coarse = torch.rand(count, 1, 9, 9, 9, generator=torch.Generator().manual_seed(seed))
    noise = F.interpolate(coarse, size=dataset.fixed.shape[2:], mode="trilinear", align_corners=True)
    return replace(
        dataset,
        fixed=noise.half(),
        moving=(1 - noise).half(),
        rotation=torch.eye(3).expand(count, 3, 3),
        translation_mm=dataset.moving_origin_mm - dataset.fixed_origin_mm,
    )


@pytest.mark.parametrize(("initial_sre_mm", "most"), [((0.0, 0.0), 12), ((4.0, 12.0), 6)])
def test_it_learns_to_find_tokens(initial_sre_mm: tuple[float, float], most: int, tmp_path: Path) -> None:
    """On new cases it finds many more tokens than random draws, and more than in another case's image."""
    settings = PretrainingSettings(
        StageSettings("feature-reg", (16, 16, 16), 3.0, 3.0),
        steps=40,
        batch=8,
        rate=3e-3,
        initial_sre_mm=initial_sre_mm,
        tokens=48,
        val_every=40,
        ema_decay=0.9,
        precision="float32",
        augmentation=NO_AUGMENTATION,
    )
    task = PretrainingTask(texture_dataset(32, 1), texture_dataset(8, 2), settings)
    result = run_task(task, tmp_path)
    before, after = task.untrained(), read_retrieval(result.best)
    assert before.top1 < 3 * before.chance1
    assert after.top1 > most * after.chance1
    assert after.top5 > 4 * after.chance5
    assert after.top1 > after.other_case1
    assert result.baseline == 1 - before.chance1
    assert not result.is_no_better_than_baseline()


def test_minutes_may_be_over_before_the_first_validation(tmp_path: Path) -> None:
    result = run_task(PretrainingTask(TRAIN, VAL, SETTINGS), tmp_path, minutes=0.0)
    assert (result.steps, result.measure, result.finished) == (0, math.inf, False)
    assert not result.is_no_better_than_baseline()


def test_pretrained_extractors_are_where_training_starts(whole: Path, tmp_path: Path) -> None:
    weights = load_extractors(whole / "best.safetensors")
    drawn = seeded_network(TINY, 5).state_dict()
    settings = TrainingSettings(
        stage=TINY,
        steps=2,
        batch=4,
        val_every=2,
        val_initialisations=1,
        precision="float32",
        seed=5,
        pretrained=weights.digest(),
    )
    task = RegistrationTask(TRAIN, VAL, settings, pretrained_network(weights, TINY, 5))
    for name, value in task.fresh_model().state_dict().items():
        assert torch.equal(value, weights.tensors.get(name, drawn[name]))
    other = replace(TINY, network="feature-reg", crop_shape=(12, 8, 10))  # the same extractors, on another crop
    assert torch.equal(
        pretrained_network(weights, other, 0).state_dict()["fixed_extractor.conv1.weight"],
        weights.tensors["fixed_extractor.conv1.weight"],
    )
    run_task(RegistrationTask(TRAIN, VAL, settings, pretrained_network(weights, TINY, 5)), tmp_path)
    assert json.loads((tmp_path / "settings.json").read_text())["pretrained"] == weights.digest()


def test_runs_without_these_options_keep_their_settings() -> None:
    """A run from before pre-training existed goes on: what its settings lack has its default."""
    task = RegistrationTask(TRAIN, VAL, TrainingSettings(stage=TINY))
    saved = dict(task.settings())
    for name in TrainingSettings.LATER:
        del saved[name]
    assert task.renamed(saved) == task.settings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_spacing_mm": 4.0}, "pre-trained with crop_spacing_mm 5.0, this stage has 4.0"),
        ({"fixed_input": "label"}, "fixed_input"),
        ({"network": "correspondence"}, "for attention-reg and do not fit correspondence"),
    ],
)
def test_extractors_of_another_kind_are_refused(change: dict[str, object], message: str, whole: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        pretrained_network(load_extractors(whole / "best.safetensors"), replace(TINY, **change), 0)  # type: ignore[arg-type]


def test_files_that_are_no_extractors_are_refused(tmp_path: Path) -> None:
    stage = Stage(build_network("attention-reg", TINY.crop_shape, 5.0), TINY, {})
    save_stage(stage, tmp_path / "stage.safetensors")
    with pytest.raises(WeightsError, match="does not hold pre-trained extractors"):
        load_extractors(tmp_path / "stage.safetensors")
    (tmp_path / "text.safetensors").write_text("weights")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_extractors(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {"format": "crossalign-extractors-1"})
    with pytest.raises(WeightsError, match="do not fit this version"):
        load_extractors(tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match="no such weight file"):
        load_extractors(tmp_path / "none.safetensors")
    save_extractors(stage.network, TINY, {}, tmp_path / "half.safetensors")
    half = load_extractors(tmp_path / "half.safetensors")
    some = {name: value for name, value in half.tensors.items() if name != "moving_extractor.conv1.weight"}
    with pytest.raises(WeightsError, match="do not fit"):
        put_extractors(replace(half, tensors=some), stage.network, TINY)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0}, {"margin_mm": -1.0}, {"radius_mm": math.nan}, {"head": "deep"}, {"tokens": 1},
        {"patients": 0.0}, {"patients": 1.5}, {"width": 0}, {"initial_sre_mm": (5.0, 1.0)}, {"seed": -1},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
@pytest.mark.usefixtures("shape_checks_off")  # a wrong choice reaches the code's own check
def test_bad_settings(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        PretrainingSettings(**change)  # type: ignore[arg-type]


def test_patients_are_whole_nested_and_drawn_by_the_seed() -> None:
    whose = [f"p{number // 2}" for number in range(20)]
    quarter, half, every = (select_patients(whose, fraction, 1) for fraction in (0.25, 0.5, 1.0))
    assert every == list(range(20))
    assert set(quarter) < set(half)
    assert (len(quarter), len(half)) == (4, 10)
    assert all((number ^ 1) in half for number in half)  # both cases of a patient
    assert len({tuple(select_patients(whose, 0.5, seed)) for seed in range(5)}) > 1
    assert len(select_patients(whose, 1e-9, 0)) == 2


@pytest.mark.parametrize("head", ["linear", "mlp", "none"])
def test_every_head_trains(head: Literal["linear", "mlp", "none"], tmp_path: Path) -> None:
    result = run(tmp_path, replace(SETTINGS, head=head, steps=2, val_every=2, foreground_only=True))
    after = read_retrieval(result.best)
    assert 0 <= after.top1 <= after.top5 <= 1
    assert result.measure == pytest.approx(1 - after.top1)


def test_a_dataset_of_one_case_has_no_other_case(tmp_path: Path) -> None:
    one: PairDataset = VAL.take(torch.tensor([0]))
    task = PretrainingTask(TRAIN, one, replace(SETTINGS, steps=2, val_every=2))
    assert math.isnan(read_retrieval(run_task(task, tmp_path).best).other_case1)
