<?php
declare(strict_types=1);
// What the front knows of itself comes from the environment file that amorce rendered into this release.
$settings = parse_ini_file(__DIR__ . '/environment.ini', true);
$news = array_filter(array_map('trim', file(__DIR__ . '/news.txt')));
$pages = glob(__DIR__ . '/*.html');
$lamps = [
    ['brass', 'Brass', 'Turned by hand, warm light', '240'],
    ['paper', 'Paper', 'Folded from a single sheet', '85'],
    ['glass', 'Glass', 'Blown, never the same twice', '310'],
];
$text = static fn (string $value): string => htmlspecialchars($value, ENT_QUOTES);
header('Content-Type: text/html; charset=utf-8');
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Boutique · <?= $text($settings['site']['environment']) ?></title>
<link rel="icon" href="assets/brass.svg">
<link rel="stylesheet" href="assets/style.css">
<header>
  <h1>Boutique</h1>
  <p>Lamps for long evenings</p>
  <nav>
<?php foreach ($pages as $page): ?>
    <a href="<?= $text(basename($page)) ?>"><?= $text(ucfirst(basename($page, '.html'))) ?></a>
<?php endforeach ?>
  </nav>
  <span class="environment"><?= $text($settings['site']['environment']) ?></span>
</header>
<main>
  <section class="lamps">
<?php foreach ($lamps as [$image, $name, $words, $price]): ?>
    <article>
      <img src="assets/<?= $image ?>.svg" alt="" width="160" height="160">
      <h2><?= $name ?></h2>
      <p><?= $words ?></p>
      <b><?= $price ?> €</b>
    </article>
<?php endforeach ?>
  </section>
  <section class="two">
    <div>
      <h2>News</h2>
      <ul>
<?php foreach ($news as $line): ?>
        <li><?= $text($line) ?></li>
<?php endforeach ?>
      </ul>
    </div>
    <div class="front">
      <h2>This front</h2>
      <dl>
        <dt>Environment</dt><dd><?= $text($settings['site']['environment']) ?></dd>
        <dt>Release</dt><dd><?= $text(basename(__DIR__)) ?></dd>
        <dt>Instance</dt><dd><?= $text($settings['site']['instance']) ?></dd>
        <dt>Database</dt><dd><?= $text($settings['database']['host']) ?></dd>
        <dt>PHP</dt><dd><?= PHP_VERSION ?> through <?= PHP_SAPI ?></dd>
        <dt>Health</dt><dd><a href="/amorce/health">/amorce/health</a></dd>
      </dl>
    </div>
  </section>
</main>
<footer>One copy of production, made by amorce from last night's backup and the delta since.</footer>
