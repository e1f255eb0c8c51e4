"""Sign-in for programs: a user's name and password for an expiring token."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from knox.models import AuthToken
from rest_framework import permissions, serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import ScopedRateThrottle, SimpleRateThrottle
from rest_framework.views import APIView

from tippers.api import Serializer


class CredentialsSerializer(Serializer):
    """What to send."""

    username = serializers.CharField()
    password = serializers.CharField(trim_whitespace=False, style={"input_type": "password"})


class TokenSerializer(Serializer):
    """What comes back: send `Authorization: Bearer <token>` until `expiry`."""

    token = serializers.CharField()
    expiry = serializers.DateTimeField()


class LoginView(APIView):
    """Answers a token; guesses are throttled by address."""

    authentication_classes = ()
    permission_classes = (permissions.AllowAny,)
    throttle_classes = (ScopedRateThrottle,)
    throttle_scope = "login"

    @extend_schema(request=CredentialsSerializer, responses=TokenSerializer)
    def post(self, request: Request) -> Response:
        serializer = CredentialsSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        user = authenticate(request, **serializer.validated_data)
        if not isinstance(user, User):
            raise AuthenticationFailed("The username or the password is wrong.")
        return Response(_token_for(user))

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"  # without it a failed sign-in would answer 403


class _FormThrottle(SimpleRateThrottle):
    scope = "login_form"
    rate = "20/min"

    def get_cache_key(self, request: Any, view: Any) -> str:
        del view
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}


def throttled_form(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A sign-in form of Django's, at which guesses are throttled by address as well."""

    def throttled(request: HttpRequest) -> HttpResponseBase:
        throttle = _FormThrottle()
        if request.method == "POST" and not throttle.allow_request(request, None):  # type: ignore[arg-type]  # it reads the address only
            wait = str(int(throttle.wait() or 0) + 1)
            said = f"Too many attempts to sign in; try again in {wait} seconds."
            return HttpResponse(
                said, status=429, content_type="text/plain", headers={"Retry-After": wait}
            )
        return view(request)

    return throttled


class LogoutView(APIView):
    """Ends the token that was sent."""

    permission_classes = (permissions.IsAuthenticated,)

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        if isinstance(request.auth, AuthToken):
            request.auth.delete()
        return Response(status=204)


def _token_for(user: User) -> dict[str, Any]:
    instance, token = AuthToken.objects.create(user=user)
    return {"token": token, "expiry": instance.expiry}
