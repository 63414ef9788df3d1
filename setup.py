"""Packaging of hmtl_plugin; ``scripts/setup.sh`` installs it together with everything it needs."""

from setuptools import find_packages, setup

# of hmtl_plugin/commands; those that need more of the repository than the package (study, recipe_options) are run there
COMMANDS = (
    "evaluate export_hf export_onnx finetune_glue finetune_squad import_hf list_options make_probing prepare_corpus "
    "prepare_glue probe python_prose results study_report try_checkpoint"
).split()

setup(
    name="hmtl-plugin",
    version="0.1.0",
    description="Hierarchical multitask BERT pre-training as a fairseq plugin",
    license="MIT",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["hmtl_plugin", "hmtl_plugin.*"]),
    entry_points={
        "console_scripts": [f"hmtl-{name.replace('_', '-')} = hmtl_plugin.commands.run:console" for name in COMMANDS]
    },
    package_data={"hmtl_plugin.reporting.probing": ["*.jinja"], "hmtl_plugin.reporting.study": ["*.jinja"]},
    install_requires=[
        "torch>=2.8",
        "fairseq-fixed==0.12.3.1",  # the fork of fairseq that imports on Python 3.11 and later
        "hydra-core==1.3.2",  # newer releases drop what fairseq calls
        "numpy>=1.26",
        "scikit-learn>=1.3",  # metrics of fine-tuning
        "scipy>=1.11",
        "sentencepiece>=0.2.2",  # offsets of pieces
        "sentencex>=1.0",  # splits paragraphs into sentences
        "tqdm>=4.60",
    ],
    extras_require={
        "dev": [
            "hypothesis",
            "jinja2",
            "matplotlib",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "tensorboard",
            "torchmetrics",  # an independent SQuAD score
        ],
        "tensorboard": ["tensorboard"],
        "report": ["jinja2", "matplotlib>=3.8"],  # probing reports
        "wordpiece": ["tokenizers>=0.21"],  # BERT's own tokenizer
        "hf": [
            "accelerate",
            "protobuf",  # sentencepiece's schema of its models
            "safetensors",
            "tokenizers>=0.21",
            "transformers",
        ],  # import, export, and what tests compare with
        "onnx": ["onnx", "onnxruntime", "onnxscript"],
    },
)
