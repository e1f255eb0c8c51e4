"""Paths of occupancy datasets and spaces."""

from occupancy.api import OccupancyDatasetViewSet, SpaceViewSet
from tippers.api import Router

router = Router()
router.register("occupancy/datasets", OccupancyDatasetViewSet, basename="occupancy-dataset")
router.register("spaces", SpaceViewSet, basename="space")
urlpatterns = router.urls
