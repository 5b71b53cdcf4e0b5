"""A teacher: any predictor, how often it looks, and what must be told of it beside its labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stereopsis.prediction.augmented import Augmented, Variants
from stereopsis.prediction.composition import Wrapping
from stereopsis.prediction.loading import load
from stereopsis.prediction.mirrored import Mirrored
from stereopsis.prediction.provenance import Provenance, provenance
from stereopsis.prediction.runtimes import runtime_of
from stereopsis.structures import Predictor, StereoOutput, StereoPair


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A predictor that labels.

    wrapping: scale, memory limit and start of the range; variants: what its answers are averaged over;
    both: whether the right view is matched too, for the left-right filter.
    """

    predictor: Predictor
    provenance: Provenance
    options: Mapping[str, object] = field(default_factory=dict)
    wrapping: Wrapping = field(default_factory=Wrapping)
    variants: Variants = field(default_factory=Variants)
    both: bool = True

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        weights: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        wrapping: Wrapping | None = None,
        variants: Variants | None = None,
        both: bool = True,
    ) -> Teacher:
        """The predictor that `stereopsis.load` gives for these, with its provenance; errors as there."""
        chosen = dict(options or {})
        predictor = load(model, weights=weights, **chosen)
        return cls(
            predictor=predictor,
            provenance=provenance(predictor, model, weights=weights),
            options=chosen,
            wrapping=wrapping or Wrapping(),
            variants=variants or Variants(),
            both=both,
        )

    def __call__(self, pair: StereoPair) -> StereoOutput:
        predictor = self.wrapping.around(self.predictor, pair.size)
        if self.variants.count > 1:
            predictor = Augmented(predictor, self.variants)
        return (Mirrored(predictor) if self.both else predictor)(pair)

    @property
    def runtime(self) -> str:
        """What runs it."""
        return runtime_of(self.predictor) or f"OpenCV and PyTorch {torch.__version__}"

    def plain(self) -> dict[str, object]:
        """All that decides its labels, as JSON holds it."""
        return {
            **dataclasses.asdict(self.provenance),
            "options": {key: self.options[key] for key in sorted(self.options)},
            "wrapping": dataclasses.asdict(self.wrapping),
            "variants": {
                "flip": self.variants.flip,
                "scales": list(self.variants.scales),
                "gammas": list(self.variants.gammas),
            },
            "both": self.both,
        }
