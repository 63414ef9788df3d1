"""Grids and seeds as users write them."""

import itertools

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.grid import OPTIONS, cell_name, cell_options, parse_grid, parse_seeds

DEFAULTS = {"lr": "3e-4", "batch-size": "32", "epochs": "3"}


def refusal(*texts: str, **options: tuple[str, ...]) -> str:
    with pytest.raises(UserError) as error:
        parse_grid(texts, DEFAULTS, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_combination_once() -> None:
    cells = parse_grid(["lr=1e-4,3e-4", "layer-decay=0.9, 1", "epochs=2,5,7"], DEFAULTS)
    wanted = itertools.product(("1e-4", "3e-4"), ("0.9", "1"), ("2", "5", "7"))
    found = [(cell["lr"], cell["layer-decay"], cell["epochs"]) for cell in cells]
    assert sorted(found) == sorted(wanted)
    assert {cell["batch-size"] for cell in cells} == {"32"}
    assert len(set(map(cell_name, cells))) == len(cells)
    assert len({tuple(cell) for cell in cells}) == 1  # one order of names: folders of an earlier grid are found again


def test_defaults_stand_where_nothing_is_given() -> None:
    assert parse_grid([], DEFAULTS) == [DEFAULTS]
    assert parse_grid(["lr=1"], DEFAULTS) == [DEFAULTS | {"lr": "1"}]
    assert parse_grid([], {}) == [{}]


def test_a_cell_as_options_and_as_a_folder() -> None:
    (cell,) = parse_grid(["freeze-up-to=-1", "head-pooling=mean"], DEFAULTS)
    assert cell_name(cell) == "lr=3e-4,batch-size=32,epochs=3,freeze-up-to=-1,head-pooling=mean"
    command = "--lr 3e-4 --batch-size 32 --max-epoch 3 --freeze-up-to -1 --head-pooling mean"
    assert cell_options(cell) == command.split()


@pytest.mark.parametrize("name", OPTIONS)
def test_what_each_name_takes(name: str) -> None:
    option = OPTIONS[name]
    if name != "head-pooling":
        assert f"--grid {name}=2,many: 'many' is no value of {name}" in refusal(f"{name}=2,many")
    else:
        assert [cell[name] for cell in parse_grid([f"{name}=cls,pair"], {})] == ["cls", "pair"]
    if option.kind is int:
        assert "'1.5' is no value" in refusal(f"{name}=1.5")
    if option.positive and name != "head-pooling":
        assert f"{name} must be above 0, not '0'" in refusal(f"{name}=1,0")
        assert "must be above 0, not '-1'" in refusal(f"{name}=-1")
    elif name != "head-pooling":
        assert parse_grid([f"{name}=0"], {}) == [{name: "0"}]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["rate=1"], "--grid rate=1: 'rate' is no option of a grid: use lr, batch-size, epochs"),
        (["1e-4,3e-4"], "'1e-4,3e-4' is no option"),
        (["LR=1"], "'LR' is no option"),
        (["lr"], "--grid lr: write lr=VALUE or lr=VALUE,VALUE"),
        (["lr="], "'' is no value of lr"),
        (["lr=1,,2"], "'' is no value of lr"),
        (["lr=1;2"], "'1;2' is no value of lr"),
        (["lr=1", "epochs=2", "lr=2"], "--grid lr=2: 'lr' is given twice"),
        (["lr=nan"], "nan"),
        (["weight-decay=inf"], "inf"),
        (["lr=1,1"], "twice"),
        (["head-pooling=median"], "'median' is no value of head-pooling: use mean, cls, max, first, pair"),
        (["head-pooling=cls,first"], "the same value twice"),
    ],
)
def test_what_is_no_grid_is_refused(texts: list[str], message: str) -> None:
    assert message in refusal(*texts)


def test_names_that_a_task_does_not_have() -> None:
    assert "'head-pooling' is no option of a grid: use lr, epochs" in refusal(
        "head-pooling=cls", names=("lr", "epochs")
    )


def test_seeds() -> None:
    assert parse_seeds("3") == [3]
    assert parse_seeds("5,1, 0") == [5, 1, 0]
    for text in ("", "1,", "one", "1.5", "-1", "1,1", "1,01"):
        with pytest.raises(UserError, match=f"--seeds {text}: write different whole numbers"):
            parse_seeds(text)
