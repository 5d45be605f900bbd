# ghostscript: a PostScript program with paths, fonts, arrays and strings, drawn into a bitmap.
# `ghostscript.sh prepare SCALE` once, `ghostscript.sh run SCALE` is measured.
set -euo pipefail

if [ "$1" = prepare ]; then
    pages=$(awk -v scale="$2" 'BEGIN { printf "%d", 16 * scale + 1 }')
    cat >work.ps <<PS
%!PS
/Helvetica findfont 9 scalefont setfont
% depth tree -: a branch and, turned, the two trees that grow from it
/tree {
  dup 0 gt {
    gsave
    0 0 moveto dup 6 mul 0 exch lineto stroke
    dup 6 mul 0 exch translate
    gsave 25 rotate dup 1 sub tree grestore
    gsave -20 rotate dup 1 sub tree grestore
    grestore
  } if
  pop
} bind def
1 1 $pages {
  pop
  gsave 300 50 translate 11 tree grestore
  0 1 400 {
    gsave
    dup 37 mul 600 mod 1 index 53 mul 800 mod translate
    dup 360 mod rotate 0 0 moveto
    dup 7 mod 7 div 1 index 11 mod 11 div 2 index 5 mod 5 div setrgbcolor
    (page ) show 20 string cvs show
    newpath 0 0 30 0 300 arc closepath fill
    grestore
  } for
  /big 20000 array def 0 1 19999 { big exch dup 30 string cvs put } for
  showpage
} for
PS
    exit
fi
exec gs -q -dSAFER -dBATCH -dNOPAUSE -r36 -sDEVICE=pgmraw -sOutputFile=- work.ps
