"""SyDE-Net: monocular and binocular sight that correct each other."""

from stereopsis.models.sydenet.network import SyDENet as SyDENet
from stereopsis.models.sydenet.network import SyDENetConfig as SyDENetConfig
