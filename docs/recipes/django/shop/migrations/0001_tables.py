"""The tables, and the trigger by which a row refuses who is too late."""

from django.db import migrations, models

from cluster import fencing

KEY = ("id", models.BigAutoField(primary_key=True, serialize=False))


class Migration(migrations.Migration):
    """All there is so far."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                KEY,
                ("cents", models.PositiveIntegerField()),
                ("receipt", models.TextField(default="")),
                ("fence", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Charge",
            fields=[
                KEY,
                ("key", models.TextField(unique=True)),
                ("cents", models.PositiveIntegerField()),
                ("asked", models.PositiveIntegerField(default=1)),
            ],
        ),
        migrations.CreateModel(
            name="Night",
            fields=[
                KEY,
                ("day", models.DateField(unique=True)),
                ("cents", models.PositiveIntegerField()),
            ],
        ),
        # In a list, as it is one statement. With PostgreSQL: SQL_GUARD_POSTGRES.
        migrations.RunSQL(
            [fencing.SQL_GUARD_SQLITE.format(table="shop_order")],
            ["DROP TRIGGER coterie_fence_shop_order"],
        ),
    ]
