"""RAFT's update block (Teed and Deng, ECCV 2020) with the separable GRU, as CREStereo and GMStereo use it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.recurrent import DeltaHead, MotionEncoder, SeparableContext, SeparableGRU


class SeparableUpdate(nn.Module):
    """Looked-up values and a field to the next hidden state and the field's change.

    values, field: their channels; factor: of the convex upsampling that `mask_head` gives logits for.
    """

    def __init__(self, values: int, *, field: int, factor: int = 4) -> None:
        super().__init__()
        self.motion = MotionEncoder(values, field=field, value_widths=(256, 192), field_widths=(128, 64))
        self.gru = SeparableGRU(128, 128, context=128)
        self.delta_head = DeltaHead(outputs=field)
        self.mask_head = nn.Sequential(
            nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(256, 9 * factor**2, 1)
        )

    def forward(
        self,
        hidden: Float[Tensor, "b c h w"],
        context: SeparableContext,
        values: Float[Tensor, "b k h w"],
        field: Float[Tensor, "b f h w"],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b f h w"]]:
        hidden = self.gru(hidden, context, [self.motion(values, field)])
        return hidden, self.delta_head(hidden)


def separable_update_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules from the published block's name to ours; then come `join_gates` and `split_contexts`."""
    return [
        (rf"^{published}\.encoder\.convc", f"{ours}.motion.value"),
        (rf"^{published}\.encoder\.convf", f"{ours}.motion.field"),
        (rf"^{published}\.encoder\.conv\.", f"{ours}.motion.merge."),
        (rf"^{published}\.gru\.conv([zrq])1\.", rf"{ours}.gru.horizontal.conv\1."),
        (rf"^{published}\.gru\.conv([zrq])2\.", rf"{ours}.gru.vertical.conv\1."),
        (rf"^{published}\.flow_head\.", f"{ours}.delta_head."),
        (rf"^{published}\.mask\.", f"{ours}.mask_head."),
    ]
