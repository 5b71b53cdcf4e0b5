"""Procedural scenes rendered to stereo pairs with exact truth: no downloads, a seed is a data set."""

from stereopsis.synthesis.distributions import DISTRIBUTIONS as DISTRIBUTIONS
from stereopsis.synthesis.distributions import Distribution as Distribution
from stereopsis.synthesis.draw import draw_scene as draw_scene
from stereopsis.synthesis.render import Rendering as Rendering
from stereopsis.synthesis.render import render as render
from stereopsis.synthesis.render import render_batch as render_batch
from stereopsis.synthesis.scene import Scene as Scene
from stereopsis.synthesis.stream import SyntheticStream as SyntheticStream
from stereopsis.synthesis.truth import Truth as Truth
