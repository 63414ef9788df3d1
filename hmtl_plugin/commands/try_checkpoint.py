"""Ask a checkpoint: fill masks, judge next sentences, find swapped words.

    python scripts/try_checkpoint.py runs/books --mask 'The <mask> sat on the mat.'

Without texts of your own it asks about the English of programming manuals, which the quick start's corpus is made of.
"""

import argparse

from hmtl_plugin.hub import HierarchicalBert
from hmtl_plugin.user_dir import add_option

MASKS = [
    "The function returns a <mask> of strings.",
    "If the file does not <mask>, an exception is raised.",
]
PAIRS = [
    ("If the key is not in the dictionary, an error is raised.", "Otherwise the value of the key is returned."),
    ("If the key is not in the dictionary, an error is raised.", "The tensor is moved to the device of the module."),
]
ORDERS = [
    "This method returns the number of elements in the list.",
    "This method returns number the of elements in the list.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="checkpoint file or folder")
    parser.add_argument("--mask", action="append", metavar="TEXT", help="a text with <mask> (repeat for more)")
    parser.add_argument("--pair", action="append", nargs=2, metavar=("A", "B"), help="does B follow A?")
    parser.add_argument("--order", action="append", metavar="TEXT", help="which words have changed places?")
    parser.add_argument("--device", default="cpu")
    add_option(parser)
    arguments = parser.parse_args()
    own = arguments.mask or arguments.pair or arguments.order

    model = HierarchicalBert.from_pretrained(arguments.run, device=arguments.device)
    objectives = model.hierarchy.objectives
    print(f"{model.checkpoint.path}: {model.hierarchy}  {model.hierarchy.transfer}".rstrip())
    if "mlm" in objectives:
        for text in arguments.mask or ([] if own else MASKS):
            print(f"\nfill mask: {text}")
            for filled in model.fill_mask(text):
                print(f"  {filled.probability:6.1%}  {filled.piece.replace('▁', '')}")
    if "nsp" in objectives or "sop" in objectives:
        question = "follows" if "nsp" in objectives else "in order"
        for first, second in arguments.pair or ([] if own else PAIRS):
            print(f"\n{question} {model.next_sentence(first, second):.0%}: {first} | {second}")
    if "bigram_shift" in objectives:
        for text in arguments.order or ([] if own else ORDERS):
            print("\nmoved: " + "  ".join(f"{word} {moved:.0%}" for word, moved in model.word_order(text)))
