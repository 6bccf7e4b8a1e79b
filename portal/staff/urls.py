"""Addresses of the sign-in and of the own account. They stand before those of the admin and below its path."""

from django.urls import path

from portal.staff import directory_views, own_account, views

urlpatterns = [
    path("login/", views.sign_in, name="staff_sign_in"),
    path("login/factor/", views.factor, name="staff_factor"),
    path("login/first-factor/", views.first_factor, name="staff_first_factor"),
    path("login/link/<str:token>/", views.link, name="staff_link"),
    path("login/directory/", directory_views.begin, name="staff_directory"),
    path("login/callback/", directory_views.callback, name="staff_directory_callback"),
    path("prove/", views.prove, name="staff_prove"),
    path("account/", own_account.account, name="staff_account"),
    path("account/app/", own_account.new_app, name="staff_new_app"),
    path("account/passkey/", own_account.new_passkey, name="staff_new_passkey"),
    path("account/codes/", own_account.new_codes, name="staff_new_codes"),
    path("account/factors/<int:key>/remove/", own_account.remove_factor, name="staff_remove_factor"),
    path("account/sessions/end/", own_account.end_sessions, name="staff_end_sessions"),
]
