"""Import a BERT in Hugging Face's layout: a checkpoint to continue, fine-tune or probe.

    python scripts/import_hf.py bert-base-uncased/ --out runs/bert
    python scripts/prepare_corpus.py my.txt --format paragraphs --tokenizer runs/bert --out data/my
    fairseq-train data/my --user-dir hmtl_plugin --finetune-from-model runs/bert/model.pt --arch hmtl_bert_base ...

The folder holds config.json, model.safetensors or pytorch_model.bin, and tokenizer.json or vocab.txt.
"""

import argparse
from pathlib import Path

from hmtl_plugin import tasks  # noqa: F401
from hmtl_plugin.interop.importing import import_bert
from hmtl_plugin.user_dir import add_option


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path, metavar="FOLDER", help="what save_pretrained wrote")
    p.add_argument("--out", required=True, type=Path, metavar="RUN", help="a new folder")
    add_option(p)
    args = p.parse_args()
    print(import_bert(args.folder, args.out))
