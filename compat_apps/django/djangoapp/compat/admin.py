"""The messages, in Django's admin."""

from __future__ import annotations

from django.contrib import admin

from djangoapp.compat.models import Message


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["text", "posted_at"]
    search_fields = ["text"]
