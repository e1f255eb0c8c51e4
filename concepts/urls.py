from concepts import api
from tippers.api import ID, Router

OF_CONCEPT = rf"concepts/(?P<c_id>{ID})"

router = Router()
router.register("concepts", api.ConceptViewSet, basename="concept")
router.register(f"{OF_CONCEPT}/values", api.ConceptValueViewSet, basename="value")
router.register(f"{OF_CONCEPT}/indexes", api.IndexViewSet, basename="index")
router.register(f"{OF_CONCEPT}/rules", api.RuleViewSet, basename="rule")
router.register(f"{OF_CONCEPT}/features", api.FeatureViewSet, basename="feature")
router.register(f"{OF_CONCEPT}/catalog", api.CatalogViewSet, basename="catalog")
router.register("dagster/assets", api.AssetViewSet, basename="asset")

urlpatterns = router.urls
