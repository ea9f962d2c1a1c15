from rest_framework.routers import SimpleRouter

from clouds.api.views import CloudGroupViewSet, ServerViewSet

router = SimpleRouter()
router.register("servers", ServerViewSet, "api-server")
router.register("cloud-groups", CloudGroupViewSet, "api-cloud-group")
urlpatterns = router.urls
