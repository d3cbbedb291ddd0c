"""Critical points: minima, saddles, the basins of the minima and the graph they make."""

from thalweg.critical.basins import basin as basin
from thalweg.critical.descents import minima as minima
from thalweg.critical.explore import critical_points as critical_points
from thalweg.critical.graph import CriticalGraph as CriticalGraph
from thalweg.critical.graph import Merge as Merge
from thalweg.critical.point import CriticalPoint as CriticalPoint
from thalweg.critical.point import critical_point as critical_point
from thalweg.critical.search import Search as Search
