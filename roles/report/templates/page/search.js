document.getElementById('groups-search').addEventListener('input', function (event) {
  var wanted = event.target.value.trim().toLowerCase(), shown = 0;
  document.querySelectorAll('#groups tbody tr').forEach(function (row) {
    row.hidden = row.textContent.toLowerCase().indexOf(wanted) < 0;
    shown += row.hidden ? 0 : 1;
  });
  document.getElementById('groups-shown').textContent = shown;
});
