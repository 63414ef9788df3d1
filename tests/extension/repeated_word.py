"""A probing task of one's own, as docs/extending.md has it: does a word stand twice in the sentence?

python repeated_word.py TEXT TASK.txt    TEXT: a sentence a line, documents between empty lines
"""

import sys
from collections import defaultdict
from pathlib import Path

SPLITS = ("tr", "tr", "tr", "va", "te")


def main(text: Path, task: Path) -> None:
    """Whole documents go to a split; of each length a split has as many sentences of one label as of the other, or
    counting words would be the answer.
    """
    alike = defaultdict(lambda: {"once": [], "twice": []})
    for number, document in enumerate(text.read_text(encoding="utf-8").split("\n\n")):
        for sentence in filter(None, document.split("\n")):
            words = sentence.lower().split()
            label = "twice" if len(set(words)) < len(words) else "once"
            alike[SPLITS[number % len(SPLITS)], len(words)][label].append(sentence)
    with task.open("w", encoding="utf-8") as file:
        for (split, _), of_label in alike.items():
            for once, twice in zip(of_label["once"], of_label["twice"], strict=False):
                file.write(f"{split}\tonce\t{once}\n{split}\ttwice\t{twice}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
