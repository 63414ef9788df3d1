"""bigram_shift: every changed sentence is one swap that obeys the rules."""

from pathlib import Path

from hmtl_plugin.probing.generation.vocabulary import is_bare
from tests.probing.generation import texts


def test_every_swap_is_of_two_neighbours_that_may(source: Path, made: Path) -> None:
    originals = {tuple(sorted(line.split(" "))): line for line in source.read_text().split("\n")}
    used = set()
    for of_split in texts.read(made / "bigram_shift.txt").values():
        for label, text in of_split:
            words = text.split(" ")
            original = originals[tuple(sorted(words))]
            assert original not in used  # once, in one class
            used.add(original)
            differing = [i for i, (a, b) in enumerate(zip(words, original.split(" "))) if a != b]
            if label == "O":
                assert not differing
                continue
            first, second = differing
            assert second == first + 1
            assert first >= 1
            assert words[first : second + 1] == original.split(" ")[first : second + 1][::-1]
            assert is_bare(words[first])
            assert is_bare(words[second])
            assert words[first].lower() != words[second].lower()


def test_a_swap_that_somebody_wrote_is_discarded(tmp_path: Path) -> None:
    docs = texts.documents(9, 60)
    twins = [f"Go, {pair} now, then, again." for pair in ("red blue", "blue red", "red green")]  # one swap is possible
    source = texts.write(tmp_path / "t", [*docs, *([twin, *docs[0][:3]] for twin in twins)])
    texts.make(source, tmp_path / "out")
    splits = texts.read(tmp_path / "out" / "bigram_shift.txt")
    assert sum(map(len, splits.values())) > 500  # all that could be used
    used = {text for rows in splits.values() for _, text in rows}
    assert not used & {*twins[:2]}
    assert used & {twins[2], "Go, green red now, then, again."}
