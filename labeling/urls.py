from django.urls import re_path

from concepts.urls import OF_CONCEPT
from labeling import api
from tippers.api import Router

router = Router()
router.register(f"{OF_CONCEPT}/labeling-functions", api.LabelingFunctionViewSet, basename="lf")
router.register(f"{OF_CONCEPT}/snorkel/jobs", api.SnorkelJobViewSet, basename="snorkel-job")
router.register(
    f"{OF_CONCEPT}/classifiers/jobs", api.ClassifierJobViewSet, basename="classifier-job"
)
# Here and not with the concepts' paths, because the graph ends in labels and classifiers.
router.register(f"{OF_CONCEPT}/lineage", api.LineageViewSet, basename="lineage")

urlpatterns = [
    re_path(rf"^{OF_CONCEPT}/snorkel/run/?$", api.SnorkelJobViewSet.as_view({"post": "launch"})),
    re_path(
        rf"^{OF_CONCEPT}/classifiers/run/?$", api.ClassifierJobViewSet.as_view({"post": "launch"})
    ),
    *router.urls,
]
