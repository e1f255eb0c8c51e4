"""Every path of the service; the apps bring their own."""

from django.contrib import admin
from django.contrib.auth.views import LoginView as FormView
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.permissions import AllowAny

from tippers.health import HealthView, ReadyView
from tippers.signin import LoginView, LogoutView, throttled_form

handler404 = "tippers.api.no_such_path"
handler500 = "tippers.api.our_fault"

urlpatterns = [
    path("", RedirectView.as_view(url="/docs")),
    # Before the same paths in what is included below.
    path("admin/login/", throttled_form(admin.site.login)),
    path(
        "browse/login/",
        throttled_form(FormView.as_view(template_name="rest_framework/login.html")),
    ),
    path("admin/", admin.site.urls),
    re_path(r"^health/?$", HealthView.as_view()),
    re_path(r"^health/ready/?$", ReadyView.as_view()),
    re_path(r"^auth/login/?$", LoginView.as_view()),
    re_path(r"^auth/logout/?$", LogoutView.as_view()),
    path("browse/", include("rest_framework.urls")),
    re_path(
        r"^schema/?$", SpectacularAPIView.as_view(permission_classes=[AllowAny]), name="schema"
    ),
    re_path(r"^docs/?$", SpectacularSwaggerView.as_view(permission_classes=[AllowAny])),
    re_path(r"^redoc/?$", SpectacularRedocView.as_view(permission_classes=[AllowAny])),
    path("", include("connections.urls")),
    path("", include("concepts.urls")),
    path("", include("labeling.urls")),
    path("", include("occupancy.urls")),
    path("", include("tippers.runs.urls")),
]
