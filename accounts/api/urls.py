from rest_framework.routers import SimpleRouter

from accounts.api.views import KeyViewSet, MemberViewSet

router = SimpleRouter()
router.register("members", MemberViewSet, "api-member")
router.register("keys", KeyViewSet, "api-key")
urlpatterns = router.urls
