# perl: hashes of arrays of hashes, string building, regular expressions, sorting, closures.
# `perl.sh prepare SCALE` once, `perl.sh run SCALE` is measured.
set -euo pipefail

if [ "$1" = prepare ]; then
    cat >work.pl <<'PERL'
use strict;
use warnings;

my $scale = shift;
my $seed = 12345;
sub rnd { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed % $_[0]; }

my %index;
for my $i (1 .. 120_000 * $scale) {
    my $key = "key" . rnd(9000);
    push @{ $index{$key} }, { id => $i, name => "n" x rnd(40) };
}
my $rows = 0;
$rows += scalar @{ $index{$_} } * length $index{$_}[0]{name} for sort keys %index;
print "hash ", scalar(keys %index), " $rows\n";
delete $index{$_} for grep { rnd(2) } sort keys %index;

my $text = "";
$text .= chr(97 + rnd(26)) . (rnd(6) ? "" : " ") for 1 .. 500_000 * $scale;
my @words = split / /, $text;
(my $swapped = $text) =~ s/(\w)(\w*)/$2$1/g;
my $count = () = $text =~ /\b[aeiou]\w*[^aeiou ]\b/g;
my @sorted = sort { length($a) <=> length($b) or $a cmp $b } @words;
print "text ", scalar(@words), " $count ", length(join "|", @sorted), " ", substr($swapped, -20), "\n";

my @subs = map { my $n = $_; my @own = ($n) x 5; sub { $own[0] * $_[0] } } 1 .. 60_000 * $scale;
my $sum = 0;
$sum += $_->(3) for @subs;
print "closures $sum\n";
PERL
    exit
fi
exec perl work.pl "$2"
