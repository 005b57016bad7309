<?php
declare(strict_types=1);
// What the front knows of itself comes from the virtual host and the environment file that amorce rendered.
$settings = parse_ini_file(__DIR__ . '/environment.ini', true, INI_SCANNER_RAW);
$news = array_filter(array_map('trim', file(__DIR__ . '/news.txt')));
header('Content-Type: text/html; charset=utf-8');
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Boutique · <?= htmlspecialchars($settings['site']['environment']) ?></title>
<link rel="stylesheet" href="assets/style.css">
<header><h1>Boutique</h1><p>one copy of production, made by amorce</p></header>
<main>
  <table>
    <tr><th>environment</th><td><?= htmlspecialchars($settings['site']['environment']) ?></td></tr>
    <tr><th>release</th><td><?= htmlspecialchars(basename(__DIR__)) ?></td></tr>
    <tr><th>instance</th><td><?= htmlspecialchars($settings['site']['instance']) ?></td></tr>
    <tr><th>database</th><td><?= htmlspecialchars($settings['database']['host']) ?></td></tr>
    <tr><th>PHP</th><td><?= PHP_VERSION ?> through <?= PHP_SAPI ?></td></tr>
  </table>
  <h2>News</h2>
  <ul>
<?php foreach ($news as $line): ?>
    <li><?= htmlspecialchars($line) ?></li>
<?php endforeach ?>
  </ul>
</main>
