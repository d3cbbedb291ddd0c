"""Dai and Zhu, Towards theoretical understanding of large batch training in SGD (2018)."""

from thalweg.papers.dai_zhu.appendix_c import appendix_c
from thalweg.papers.dai_zhu.appendix_h import appendix_h
from thalweg.papers.dai_zhu.box_law import box_law
from thalweg.papers.dai_zhu.convergence import convergence
from thalweg.papers.dai_zhu.diffusion_limit import diffusion_limit
from thalweg.papers.dai_zhu.escape_time import escape_time
from thalweg.papers.dai_zhu.fokker_planck import fokker_planck
from thalweg.papers.dai_zhu.general_noise import general_noise
from thalweg.papers.dai_zhu.networks import networks
from thalweg.papers.dai_zhu.only_the_ratio import only_the_ratio

ITEMS = (
    *("(2.1)", "(2.2)", "(2.3)", "Lemma 2.1", "only γ/M matters", "Theorem 2.2", "Lemma 2.3"),
    *("(A.1) to (A.3)", "(2.6)", "Theorem 2.4", "Theorem 2.5", "(2.7)", "KMNST hypothesis"),
    *("Appendix B", "Appendix C", "Appendix E", "Appendix F", "Appendix G"),
    *("Figure 1", "Figure 2", "Figure 3", "Figure 4", "Figure 5", "Figure 6", "Figure 7"),
    "Figure 8",
)
EXPERIMENTS = (
    *(diffusion_limit, fokker_planck, only_the_ratio, escape_time, general_noise, convergence),
    *(box_law, appendix_h, appendix_c, networks),
)

__all__ = ["EXPERIMENTS", "ITEMS", *(one.function.__name__ for one in EXPERIMENTS)]
