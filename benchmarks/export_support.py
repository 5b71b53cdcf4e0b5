"""Which networks export, tried in their small configurations: results/export/support/*.json.

Any size first, else one size; the ONNX file is run beside the original at two sizes.
Example: python benchmarks/export_support.py coex aanet
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from stereopsis.export.main import prove
from stereopsis.export.onnx import to_onnx
from stereopsis.export.original import Original, random_original
from stereopsis.export.parity import rendered_samples
from stereopsis.io.files import write_json
from stereopsis.models.registry import entry

RESULTS = Path(__file__).resolve().parent / "results" / "export" / "support"
SIZES = ((96, 160), (131, 203))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in parser.parse_args().networks:
        facts = tried(random_original(name, **entry(name).tiny))
        write_json(RESULTS / f"{name}.json", {"network": name, **facts})
        print(name, facts, flush=True)


def tried(source: Original) -> dict[str, object]:
    facts: dict[str, object] = {"config": source.config}
    for size in (None, SIZES[0]):
        text = "any size" if size is None else "one size"
        try:
            model = to_onnx(source, size=size)
        except ValueError as error:
            facts[text] = " ".join(str(error).split())[:300]
            continue
        samples = list(rendered_samples([size] if size else SIZES, each=1, seed=0))
        with tempfile.TemporaryDirectory() as folder:
            model.write(Path(folder) / "network.onnx")
            try:
                parity = prove(Path(folder) / "network.onnx", source, samples)[0].parity
            except ValueError as error:
                reason = " ".join(str(error).replace(f"{folder}/", "").split())
                facts[text] = f"exported, but does not run: {reason[:300]}"
                continue
        facts[text] = {
            "batch": "any" if model.header.batch is None else model.header.batch,
            "within 0.001 px": parity.close,
            "largest px": parity.largest,
        }
        break
    return facts


if __name__ == "__main__":
    main()
