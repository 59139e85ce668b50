"""The form at ``/form``."""

from __future__ import annotations

from django import forms

from djangoapp.compat.models import Message


class MessageForm(forms.ModelForm):
    """A message, as it was typed: leading and trailing space is part of it."""

    text = forms.CharField(required=False, strip=False)

    class Meta:
        model = Message
        fields = ["text"]
