<?php
// For amorce alone (the virtual host lets only this machine ask): which release Apache and PHP-FPM have loaded. The token comes
// once from the virtual host and once from the pool; as long as they differ, one of them still has another release's
// configuration, and there is no answer.
$site = $_SERVER['AMORCE_SITE_TOKEN'] ?? '';
$pool = getenv('AMORCE_TOKEN');
$isLoaded = is_string($site) && $site !== '' && is_string($pool) && hash_equals($pool, $site);

http_response_code($isLoaded ? 200 : 503);
header('Content-Type: application/json');
header('Cache-Control: no-store');
echo json_encode(
    $isLoaded
        ? ['release' => (string) getenv('AMORCE_RELEASE'), 'token' => $pool]
        : ['error' => 'Apache and PHP-FPM have not loaded the same release']
), "\n";
