from django.urls import path, register_converter
from django.urls.converters import StringConverter

from consent import views

app_name = "consent"


class CloudConverter(StringConverter):
    """Only the clouds that exist have a callback path (S-19)."""

    regex = "global|usgov|china"


register_converter(CloudConverter, "cloud")

urlpatterns = [
    path("callback/<cloud:cloud_key>", views.callback, name="callback"),
    path("admin-consent/<cloud:cloud_key>", views.admin_consent_callback, name="admin_consent_callback"),
    path("about/<cloud:cloud_key>/<uuid:application_id>/", views.trust, name="trust"),
    path("result/<str:public_id>", views.result, name="result"),
    path("again/<str:public_id>/", views.landing_again, name="landing_again"),
    path("again/<str:public_id>/start", views.start_again, name="start_again"),
    path("<str:token>/", views.landing, name="landing"),
    path("<str:token>/start", views.start, name="start"),
]
