"""What is wrong with somebody's attention, layer, model, norm or loss."""

from .battery import CHECKS, diagnose
from .report import Diagnosis, Finding

__all__ = ["CHECKS", "Diagnosis", "Finding", "diagnose"]
