"""A probing task of one's own, as docs/extending.md has it: does a word stand twice in the sentence?

python repeated_word.py TEXT TASK.txt    TEXT: a sentence a line, documents between empty lines
"""

import sys
from collections import defaultdict
from pathlib import Path

SPLITS = ("tr", "tr", "tr", "va", "te")


def main(text: Path, task: Path) -> None:
    """Whole documents go to a split, and each split gets as many rows of one label as of the other."""
    rows = defaultdict(lambda: defaultdict(list))
    for number, document in enumerate(text.read_text(encoding="utf-8").split("\n\n")):
        for sentence in filter(None, document.split("\n")):
            words = sentence.lower().split()
            label = "twice" if len(set(words)) < len(words) else "once"
            rows[SPLITS[number % len(SPLITS)]][label].append(sentence)
    with task.open("w", encoding="utf-8") as file:
        for split, of_label in rows.items():
            count = min(len(of_label["once"]), len(of_label["twice"]))
            for label, sentences in of_label.items():
                for sentence in sentences[:count]:
                    file.write(f"{split}\t{label}\t{sentence}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
