"""The main job: where gradient descent, SGD and RR end, from the same starts."""

from thalweg.compare.job import compare as compare
from thalweg.compare.network import networks as networks
from thalweg.output import Output as Output
