from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Message",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("text", models.TextField(blank=True)),
                ("posted_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ["-posted_at"]},
        ),
    ]
