<?php
// For the load balancer: 200 only while the file that amorce writes last, after its proof, exists and names this very boot.
// A file that survived a reboot or was baked into an image says nothing.
$file = $_SERVER['AMORCE_HEALTH_FILE'] ?? '';
$text = is_string($file) && $file !== '' && is_file($file) ? @file_get_contents($file) : false;
$health = $text === false ? null : json_decode($text, true);
$boot = trim((string) @file_get_contents('/proc/sys/kernel/random/boot_id'));
$isReady = is_array($health) && $boot !== '' && ($health['bootIdentifier'] ?? null) === $boot;

http_response_code($isReady ? 200 : 503);
header('Content-Type: application/json');
header('Cache-Control: no-store');
echo json_encode(['status' => $isReady ? 'ready' : 'not ready']), "\n";
