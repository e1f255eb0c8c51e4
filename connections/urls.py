from connections import api
from tippers.api import Router

router = Router()
router.register("database-connections", api.ConnectionViewSet, basename="connection")
router.register("connections", api.ConnectionViewSet, basename="connection-by-short-name")

urlpatterns = router.urls
