from rest_framework.routers import SimpleRouter

from clouds.api.suppressions import RecurrenceViewSet, SuppressionViewSet
from clouds.api.views import CloudGroupViewSet, ServerViewSet

router = SimpleRouter()
router.register("servers", ServerViewSet, "api-server")
router.register("cloud-groups", CloudGroupViewSet, "api-cloud-group")
router.register("suppressions", SuppressionViewSet, "api-suppression")
router.register("recurrences", RecurrenceViewSet, "api-recurrence")
urlpatterns = router.urls
