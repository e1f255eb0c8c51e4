from django.urls import re_path

from concepts.urls import OF_CONCEPT
from labeling.api.classifiers import ClassifierJobViewSet
from labeling.api.functions import LabelingFunctionViewSet
from labeling.api.lineage import LineageViewSet
from labeling.api.snorkel import SnorkelJobViewSet
from tippers.api import Router

router = Router()
router.register(f"{OF_CONCEPT}/labeling-functions", LabelingFunctionViewSet, basename="lf")
router.register(f"{OF_CONCEPT}/snorkel/jobs", SnorkelJobViewSet, basename="snorkel-job")
router.register(f"{OF_CONCEPT}/classifiers/jobs", ClassifierJobViewSet, basename="classifier-job")
# Here and not with the concepts' paths, because the graph ends in labels and classifiers.
router.register(f"{OF_CONCEPT}/lineage", LineageViewSet, basename="lineage")

urlpatterns = [
    re_path(rf"^{OF_CONCEPT}/snorkel/run/?$", SnorkelJobViewSet.as_view({"post": "launch"})),
    re_path(rf"^{OF_CONCEPT}/classifiers/run/?$", ClassifierJobViewSet.as_view({"post": "launch"})),
    *router.urls,
]
